"""A translator: text on both sides, sharded tables, a replicated model and an output layer; search and scores."""
