"""The training loop and what it needs: it knows nothing of Hydra, Optuna or MLflow."""
