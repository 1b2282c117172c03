"""The lookup benchmark: contenders, race and report of lookup_bench.py."""
