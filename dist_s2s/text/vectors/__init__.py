"""Word vectors from elsewhere: files of them, which tokens of a vocabulary they cover, and writing them again."""
