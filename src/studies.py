"""Look after studies: ``python src/studies.py list|show|watch|stop|grow|report|export|free|delete``."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import optuna

from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.errors import InputError
from iolaus.reporting import export, overview, page
from iolaus.study import catalog
from iolaus.study.catalog import StoredStudy
from iolaus.sweep import live


def main() -> None:
    """Do what the verb asks for, and print what came of it; without a verb print the help."""
    parser = _parser()
    args = parser.parse_args()
    if args.verb is None:
        parser.print_help()
        sys.exit(2)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(VERBS[args.verb](args))


def list_all(args: argparse.Namespace) -> str:
    """List all studies: trials, best value, last activity, disk space."""
    found = [stored.line() for stored in catalog.find(args.root, args.storage)]
    return "\n".join(found) or f"no studies in {args.storage or args.root}"


def show(args: argparse.Namespace) -> str:
    """Show one study: its state, its best trial, why trials failed, its results, its folder and its command."""
    return "\n".join(overview.lines(_find(args), args.storage))


def watch(args: argparse.Namespace) -> str:
    """Watch a search that runs elsewhere until it ends; Ctrl-C ends the watching only."""
    return live.watch(_find(args))


def stop(args: argparse.Namespace) -> str:
    """Have the commands that search begin no further trial."""
    catalog.stop(_find(args))
    return f"{args.name} begins no further trial; those that run come to their end"


def grow(args: argparse.Namespace) -> str:
    """Raise the total of a study, also for the commands that search now."""
    catalog.grow(_find(args), args.n_trials)
    return f"{args.name} goes on to {args.n_trials} trials; if nobody is at work, run its command again"


def report(args: argparse.Namespace) -> str:
    """Write the report again, and print the path of its page."""
    stored = _find(args)
    if stored.folder is None or not stored.folder.is_dir():
        raise InputError(f"the folder of study {args.name}, in which its report belongs, is not here: {stored.folder}")
    return str(page.write_again(stored.study, stored.folder))


def export_results(args: argparse.Namespace) -> str:
    """Write the results as JSON, for those who keep or compare them."""
    export.write(_find(args), args.file)
    return str(args.file)


def free(args: argparse.Namespace) -> str:
    """Delete the checkpoints and models of all trials but the best."""
    return f"{catalog.free(_find(args)) / 1e6:,.1f} MB freed: the best trial keeps its model"


def delete(args: argparse.Namespace) -> str:
    """Delete a study with its folder and what followed it."""
    stored = _find(args, any_version=True)
    print(f"deleting {stored.line()}")
    catalog.delete(stored)
    return "its MLflow runs stay: mlflow ui can delete them"


VERBS: dict[str, Callable[[argparse.Namespace], str]] = {
    "list": list_all,
    "show": show,
    "watch": watch,
    "stop": stop,
    "grow": grow,
    "report": report,
    "export": export_results,
    "free": free,
    "delete": delete,
}


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what it cannot parse."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    places = _Parser(add_help=False)
    root = config.project_root() / "multirun"
    places.add_argument("--root", type=Path, default=root, help="the folder of sweeps (default: %(default)s)")
    places.add_argument("--storage", help="where studies are stored if not in their folders: hydra.sweeper.storage")
    parser = _Parser(prog="python src/studies.py", description="Look after studies.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    for verb, function in VERBS.items():
        added = verbs.add_parser(verb, help=function.__doc__, description=function.__doc__, parents=[places])
        if verb != "list":
            added.add_argument("name", metavar="NAME", help="of the study: list shows all names")
        if verb == "grow":
            added.add_argument("n_trials", metavar="N", type=int, help="the new total")
        if verb == "export":
            added.add_argument("file", metavar="FILE", type=Path, help="the file to write")
    return parser


def _find(args: argparse.Namespace, any_version: bool = False) -> StoredStudy:
    return catalog.find_one(args.name, args.root, args.storage, any_version=any_version)


if __name__ == "__main__":
    command_line.report_mistakes()
    main()
