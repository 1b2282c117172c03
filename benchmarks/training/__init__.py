"""The training benchmark: contenders, race and report of train_bench.py."""
