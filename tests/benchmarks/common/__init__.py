"""Tests of benchmarks/common."""
