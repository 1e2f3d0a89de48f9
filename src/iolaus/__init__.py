"""Iolaus: Hydra-configured hyperparameter sweeps for PyTorch image classifiers."""

from iolaus.current import current_trial, report, require_same

__all__ = ["current_trial", "report", "require_same"]
