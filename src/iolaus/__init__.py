"""Iolaus: Hydra-configured hyperparameter sweeps for PyTorch image classifiers."""

from iolaus.current import constrain, current_trial, report, require_same

__all__ = ["constrain", "current_trial", "report", "require_same"]
