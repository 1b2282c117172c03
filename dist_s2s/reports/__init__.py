"""What a run has measured, for people: on a terminal."""
