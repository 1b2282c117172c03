"""Aligning the vectors of two languages, so that a word and its translation lie close together."""
