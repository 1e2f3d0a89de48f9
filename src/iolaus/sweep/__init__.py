"""One command that sweeps, from its overrides to its summary."""
