"""Tables whose rows are divided among ranks: building them, looking rows up, growing and moving them."""
