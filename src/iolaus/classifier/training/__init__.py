"""The training loop and its parts, which know nothing of Hydra, Optuna or MLflow."""
