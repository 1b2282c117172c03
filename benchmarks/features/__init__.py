"""The comparison of features: questions, checks that all systems share, and a module of probes for each system."""
