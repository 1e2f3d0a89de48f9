"""Look at a sweep: draw its report again, keep its figures, watch it run elsewhere, end it or raise its total."""

import argparse
from pathlib import Path

import optuna

from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.errors import InputError
from iolaus.reporting import export, page
from iolaus.study import catalog
from iolaus.sweep import live


def main() -> None:
    """Do what was asked for; without an option write the page and the pictures, and print where the page is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", help="its name: python src/studies.py list shows them")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--watch", action="store_true", help="show it while it runs; Ctrl-C ends the looking only")
    asked.add_argument("--stop", action="store_true", help="have the commands that search begin no further trial")
    asked.add_argument("--grow", type=int, metavar="N", help="raise its total, also for the commands that search now")
    asked.add_argument("--json", type=Path, metavar="FILE", help="write what it came to as figures")
    parser.add_argument(
        "--root", type=Path, default=config.project_root() / "multirun", help="folder of sweeps (default: %(default)s)"
    )
    parser.add_argument("--storage", help="where the studies are kept, if not in their folders: hydra.sweeper.storage")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = catalog.find_one(args.study, args.root, args.storage)
    if args.watch:
        print(live.watch(kept))
    elif args.stop:
        catalog.stop(kept)
        print(f"{args.study} begins no further trial; those that run come to their end")
    elif args.grow is not None:
        catalog.grow(kept, args.grow)
        print(f"{args.study} goes on to {args.grow} trials; if nobody is at work, run its command again")
    elif args.json is not None:
        export.write(kept, args.json)
        print(args.json)
    elif kept.folder is None or not kept.folder.is_dir():
        raise InputError(f"the folder of study {args.study}, in which its report belongs, is not here: {kept.folder}")
    else:
        print(page.write_again(kept.study, kept.folder))


if __name__ == "__main__":
    command_line.report_mistakes()
    main()
