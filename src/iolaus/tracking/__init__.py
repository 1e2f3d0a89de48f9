"""Records of runs and sweeps, for any Hydra app."""
