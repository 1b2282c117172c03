"""What a run has measured and learnt, for people: on a terminal, and as a page."""
