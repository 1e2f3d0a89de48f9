"""docs/results.md holds what its files say."""

import importlib.util
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_files(results: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    assert results.page(page, results.kept_results()) == page, "run python benchmarks/results.py"


def test_a_table_that_is_out_of_date_is_replaced(results: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    stale = page.replace("| MLP, images as they are | 98.", "| MLP, images as they are | 97.")
    assert stale != page
    assert results.page(stale, results.kept_results()) == page


def test_a_table_without_a_place_is_a_mistake(results: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    with pytest.raises(ValueError, match="must have a line <!-- searches -->"):
        results.page(page.replace("<!-- searches -->", ""), results.kept_results())


def test_each_network_is_kept_as_an_experiment(results: ModuleType) -> None:
    assert results.kept_results().keys() == {*results.SEARCHES, *results.COMPARISONS.values()}
    for name in results.FAMILIES:
        assert (ROOT / "conf" / "experiment" / f"{name}.yaml").is_file()
