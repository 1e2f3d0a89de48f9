# make demo: train, look and search on the bundled digits.  make test: the tests.  Both install what they need first.
# make bench: short versions of the benchmarks, on real MNIST, with their figures in bench/; nothing should run beside.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint bench
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

bench: $(INSTALLED)
	mkdir -p bench
	$(BIN)/python benchmarks/startup.py --rounds 3 --json bench/startup.json
	$(BIN)/python benchmarks/epoch.py --rounds 1 --json bench/epoch.json
	$(BIN)/python benchmarks/limit.py --rounds 2 --json bench/limit.json
	$(BIN)/python benchmarks/speedrun.py --rounds 1 --json bench/speedrun.json
	$(BIN)/python benchmarks/peers.py mlp --epochs 2 --json bench/peers.json
	$(BIN)/python benchmarks/stacked.py --rounds 1 --stacks 8 --json bench/stacked.json
	$(BIN)/python benchmarks/overhead.py --rounds 1 --json bench/overhead.json
	$(BIN)/python benchmarks/workers.py spin --rounds 1 --json bench/workers.json
	$(BIN)/python benchmarks/sweep.py trial uneven --rounds 1 --json bench/sweep.json
	$(BIN)/python benchmarks/memory.py --trials 100 --json bench/memory.json

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@
