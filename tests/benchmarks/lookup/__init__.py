"""Tests of benchmarks/lookup."""
