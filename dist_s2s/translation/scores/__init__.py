"""How good translations are: BLEU, chrF, TER, whether a difference is one, and how likely a model finds given ones."""
