"""What the benchmarks share: machine, console, arguments, memory, samplers, and environments of other systems."""
