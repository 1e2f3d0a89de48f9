"""The arrows between the rooms of the house, read from the source without importing it."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import ROOT

FLOORS = ["errors", "metric_table", "optuna_internals", "system", "search_space", "study", "task", "command_line",
          "compare", "reporting", "tracking", "sweep", "classifier"]  # fmt: skip
"""From the ground up: what stands on a floor imports only from its own and those below."""
ROOMS = ["data", "models", "training", "run"]
"""The same of the classifier."""
HEAVY = {"torch", "torchvision", "mlflow"}


def modules() -> dict[str, tuple[Path, ast.Module]]:
    paths = sorted((ROOT / "src" / "iolaus").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: (path, ast.parse(path.read_text())) for name, path in zip(names, paths, strict=True)}


def imports(tree: ast.AST, everywhere: bool = True) -> Iterator[str]:
    """Give what is imported: everywhere, or only when the module itself is."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif everywhere or (not isinstance(node, ast.FunctionDef | ast.Lambda) and not _for_types(node)):
            yield from imports(node, everywhere)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def floor(name: str) -> tuple[int, int]:
    """Give how high a module lies: its floor and, in the classifier, its room."""
    _, first, *rest = f"{name}.".split(".")
    return FLOORS.index(first), ROOMS.index(rest[0]) if first == "classifier" and rest[0] else -1


def arrows() -> dict[str, set[str]]:
    known = modules()
    found = {name: {_module(target, known) for target in imports(tree)} for name, (_, tree) in known.items()}
    return {name: targets - {None, name} for name, targets in found.items()}


def _module(target: str, known: dict[str, tuple[Path, ast.Module]]) -> str | None:
    return next((name for name in (target, target.rpartition(".")[0]) if name in known), None)


def test_no_arrow_goes_up() -> None:
    up = [
        f"{name} imports {target}"
        for name, targets in arrows().items()
        for target in targets
        if name != "iolaus" and target != "iolaus" and floor(target) > floor(name)
    ]
    assert not up


def test_no_circle() -> None:
    TopologicalSorter(arrows()).prepare()  # raises CycleError, which names one


def test_the_sweepers_half_imports_neither_torch_nor_mlflow_with_itself() -> None:
    heavy = {
        f"{name} imports {target}"
        for name, (_, tree) in modules().items()
        for target in imports(tree, everywhere=False)
        if target.split(".")[0] in HEAVY and ".classifier" not in name
    }
    assert not heavy


def test_only_packages_that_configurations_name_re_export() -> None:
    for name, (path, tree) in modules().items():
        if path.name == "__init__.py" and name not in ("iolaus", "iolaus.classifier.data", "iolaus.classifier.models"):
            assert not list(imports(tree)), name
