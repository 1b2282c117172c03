"""What tables need in programs that wrap, save, scale or skip: torch's own wrappers and those of others."""
