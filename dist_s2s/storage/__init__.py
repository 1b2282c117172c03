"""What a run keeps on disk: its directory, its checkpoints, and files that are whole or absent."""
