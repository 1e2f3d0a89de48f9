"""docs/results.md holds what its files say."""

import importlib.util
import sys

from conftest import ROOT


def test_the_tables_are_those_of_the_files() -> None:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    page = (ROOT / "docs" / "results.md").read_text()
    assert results.page(page, results.kept_figures()) == page, f"{sys.executable} benchmarks/results.py"
