"""The test suite, a package so that rank processes can import test modules by name."""
