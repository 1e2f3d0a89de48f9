"""Look after the studies of sweeps: ``python src/studies.py list``, ``free NAME`` and ``delete NAME``."""

import argparse
from pathlib import Path

from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.study import catalog


def main() -> None:
    """List studies, delete the checkpoints of all trials of one but its best, or delete it as a whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["list", "free", "delete"])
    parser.add_argument("name", nargs="?", help="the study: not needed for list")
    parser.add_argument(
        "--root", type=Path, default=config.project_root() / "multirun", help="folder of sweeps (default: %(default)s)"
    )
    parser.add_argument("--storage", help="where the studies are kept, if not in their folders: hydra.sweeper.storage")
    args = parser.parse_args()
    if args.action == "list":
        found = list(catalog.find(args.root, args.storage))
        print("\n".join(kept.line() for kept in found) or f"no studies in {args.storage or args.root}")
        return
    if args.name is None:
        parser.error(f"{args.action} needs the name of a study; list shows them")
    kept = catalog.find_one(args.name, args.root, args.storage, any_version=args.action == "delete")
    if args.action == "free":
        print(f"{catalog.free(kept) / 1e6:,.1f} MB freed: the best trial keeps its model")
    else:
        print(f"deleting {kept.line()}")
        catalog.delete(kept)
        print("its MLflow runs stay: mlflow ui can delete them")


if __name__ == "__main__":
    command_line.report_mistakes()
    main()
