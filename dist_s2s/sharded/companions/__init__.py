"""What tables need in the company of other programs: whole states, distributed checkpoints."""
