"""Iolaus: Hydra-configured hyperparameter sweeps for PyTorch image classifiers."""

from iolaus.task import constrain, current_trial, is_final, log_results, report, require_same

__all__ = ["constrain", "current_trial", "is_final", "log_results", "report", "require_same"]
