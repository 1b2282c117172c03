"""How bytes move: the group of ranks, and its transports: local, collective and shared memory."""
