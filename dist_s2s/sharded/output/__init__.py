"""Losses and search over an output layer whose rows are divided among ranks."""
