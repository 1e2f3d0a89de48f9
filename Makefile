# make demo: train, look and search on the bundled digits.  make test: the tests.  Both install what they need first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint
demo: $(INSTALLED)
	$(BIN)/python src/explore.py data=digits model=mlp
	$(BIN)/python src/train.py data=digits model=cnn epochs=10
	$(BIN)/python src/train.py -m hparams_search=optuna data=digits hydra.sweeper.n_trials=20
	@echo "Next: $(BIN)/python src/train.py model=cnn optimizer.lr=0.01    (real MNIST, downloaded once)"
	@echo "      $(BIN)/mlflow ui    (compare the runs)"

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@
