"""Files, processes and machines; it knows nothing of sweeps."""
