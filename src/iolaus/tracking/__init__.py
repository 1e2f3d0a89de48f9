"""Where runs and sweeps are recorded, for any Hydra app."""
