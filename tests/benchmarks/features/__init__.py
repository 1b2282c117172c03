"""Tests of benchmarks/features."""
