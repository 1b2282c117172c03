"""Tests of benchmarks/training."""
