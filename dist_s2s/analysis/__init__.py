"""Looking at embeddings: their statistics, and which words are neighbours, on tables that are never whole."""
