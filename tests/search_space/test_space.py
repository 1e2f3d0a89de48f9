"""Spaces of which parts exist only sometimes: read, checked, gone through."""

from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from iolaus.errors import InputError
from iolaus.search_space.overrides import any_value, equal, overrides, parse
from iolaus.search_space.space import Condition, Parameter, Space, read_when

LOADER = ConfigLoaderImpl(config_search_path=create_config_search_path(None))


def space(params: dict[str, str], when: dict[str, Any]) -> Space:
    """A space as a configuration writes it."""
    everywhere = [Parameter(key, parse(f"{key}={value}")[key]) for key, value in params.items()]
    return Space([*everywhere, *read_when(when, LOADER)])


NESTED = {
    "model=cnn": {"channels": "choice([16,32],[32,64])", "optimizer=sgd": {"batch_norm": "choice(true,false)"}},
    "model=mlp": {"width": "range(1,4)", "width=2,3": {"second": "interval(0.0,1.0)"}},
    "optimizer=sgd": {"momentum": "interval(0.5,0.9)", "nesterov": True},
}
PARAMS = {"model": "choice(mlp,cnn)", "optimizer": "choice(adam,sgd)"}


def chosen(here: Space, **wanted: Any) -> dict[str, Any]:
    """What exists if parameters have these values, the others any."""
    return here.choose(lambda name, domain: wanted.get(name, any_value(domain)))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"model": "mlp", "optimizer": "adam", "width": 1}, {"model", "optimizer", "width"}),
        ({"model": "mlp", "optimizer": "adam", "width": 3}, {"model", "optimizer", "width", "second"}),
        ({"model": "mlp", "optimizer": "sgd", "width": 1}, {"model", "optimizer", "width", "momentum", "nesterov"}),
        ({"model": "cnn", "optimizer": "adam"}, {"model", "optimizer", "channels"}),
        (
            {"model": "cnn", "optimizer": "sgd"},
            {"model", "optimizer", "channels", "batch_norm", "momentum", "nesterov"},
        ),
    ],
)
def test_a_parameter_exists_where_all_of_its_conditions_hold(wanted: dict[str, Any], expected: set[str]) -> None:
    assert chosen(space(PARAMS, NESTED), **wanted).keys() == expected


def test_a_value_that_is_not_searched_holds_in_its_branch_only() -> None:
    here = space(PARAMS, NESTED)
    assert chosen(here, optimizer="sgd")["nesterov"] == "True"
    assert "nesterov" not in here.distributions


def test_parents_come_first_wherever_they_stand() -> None:
    here = space({"a": "1,2"}, {"c=1": {"d": "1,2"}, "b=1": {"c": "1,2"}, "a=1": {"b": "1,2"}})
    assert [parameter.name for parameter in here.parameters] == ["a", "b", "c", "d"]
    assert chosen(here, a=1, b=1, c=1).keys() == {"a", "b", "c", "d"}
    assert chosen(here, a=1, b=2, c=1).keys() == {"a", "b"}


def test_the_branches_have_each_parameter_and_each_option_of_a_parent_or_a_group() -> None:
    branches = space(PARAMS | {"data": "a,b", "free": "1,2"}, NESTED).branches(lambda key: key in ("model", "data"))
    assert {name for branch in branches for name in branch} == {
        "model", "optimizer", "data", "free", "channels", "batch_norm", "width", "second", "momentum", "nesterov",
    }  # fmt: skip
    for name, choices in {"model": {"mlp", "cnn"}, "optimizer": {"adam", "sgd"}, "data": {"a", "b"}}.items():
        assert {branch[name] for branch in branches} == choices
    assert {branch["free"] for branch in branches} == {1}
    assert all(branches.count(branch) == 1 for branch in branches)
    assert all("batch_norm" not in branch or branch["optimizer"] == "sgd" for branch in branches)


GROUPS = {"model", "optimizer"}


def branches(here: Space, *keys: str) -> set[tuple[Any, ...]]:
    """The values of some keys in each branch."""
    return {tuple(branch.get(key) for key in keys) for branch in here.branches(GROUPS.__contains__)}


def test_what_lies_in_a_group_is_composed_with_each_option_of_the_group() -> None:
    here = space(
        {"model": "choice(cnn,mlp)", "optimizer": "choice(adam,sgd)"}, {"optimizer=sgd": {"model.norm": "1,2"}}
    )
    assert branches(here, "model", "optimizer") >= {("cnn", "sgd"), ("mlp", "sgd")}


def test_each_value_that_a_condition_names_has_a_branch() -> None:
    here = space({"a": "1,2,3"}, {"a=1,2": {"b": "1,2", "b=1,2": {"c": "3,4"}}})
    assert branches(here, "a", "b", "c") >= {(1, 1, 3), (2, 1, 3), (1, 2, 3), (3, None, None)}


def test_conditions_may_overlap_on_one_parent() -> None:
    nested = space({"model": "choice(cnn,cnn_dropout)"}, {"model=cnn,cnn_dropout": {"model=cnn_dropout": {"p": "1,2"}}})
    assert chosen(nested, model="cnn_dropout").keys() == {"model", "p"}
    crossed = space({"a": "1,2"}, {"a=1,2": {"b=1": {"c": "1,2"}}, "a=2": {"b": "1,2"}})
    assert branches(crossed, "a", "b", "c") == {(1, None, None), (2, 1, 1), (2, 2, None)}


def test_a_key_with_choices_of_its_own_in_each_branch_is_composed_with_these() -> None:
    here = space(
        {"model": "choice(mlp,cnn)"}, {"model=mlp": {"z": "a,b", "z=b": {"y": "1,2"}}, "model=cnn": {"z": "c,d"}}
    )
    found = {(branch["model"], *(v for k, v in branch.items() if k.startswith("z"))) for branch in
             here.branches(GROUPS.__contains__)}  # fmt: skip
    assert found == {("mlp", "a"), ("mlp", "b"), ("cnn", "c"), ("cnn", "d")}


def test_a_key_with_the_same_range_in_each_branch_is_one_parameter() -> None:
    here = space({"o": "a,b,c"}, {"o=a": {"lr": "interval(0.1,1.0)"}, "o=b": {"lr": "interval(0.1,1.0)"}})
    assert list(here.distributions) == ["o", "lr"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("1e-14", "1e-16", False), (1234567890, 1234567891, False), ("007", "7", False), ("nan", "nan", True),
     (0.1 + 0.2, "0.3", True), (1, "1.0", True), (True, "true", True), ("1e-3", 0.001, True), ("a", "A", False)],
)  # fmt: skip
def test_values_are_alike_if_hydra_reads_them_alike(one: object, other: object, same: bool) -> None:
    assert equal(one, other) == same


def test_what_may_be_deleted_is_deleted_in_a_branch() -> None:
    here = Space([Parameter("~layers.conv", CategoricalDistribution([False, True]))])
    assert branches(here, "~layers.conv") == {(False,), (True,)}


def test_a_space_without_conditions_has_one_branch() -> None:
    assert space({"a": "1,2", "b": "interval(0,4)"}, {}).branches(lambda _: False) == [{"a": 1, "b": 2.0}]
    assert Space().branches(lambda _: False) == [{}]


def test_the_tree_shows_each_branch_under_its_condition() -> None:
    assert list(space(PARAMS, NESTED).tree()) == [
        "model           mlp | cnn",
        "optimizer       adam | sgd",
        "when model=cnn",
        "  channels      [16,32] | [32,64]",
        "  when optimizer=sgd",
        "    batch_norm  True | False",
        "when model=mlp",
        "  width         1 to 3, whole numbers",
        "  when width=2,3",
        "    second      0.0 to 1.0",
        "when optimizer=sgd",
        "  momentum      0.5 to 0.9",
        "  nesterov      True",
    ]


@pytest.mark.parametrize(
    ("params", "when", "said"),
    [
        (PARAMS, {"optimizer=sgdd": {"m": "1,2"}}, "optimizer=sgdd, which it cannot be: it is searched in adam | sgd"),
        ({"n": "range(1,4)"}, {"n=4": {"m": "1,2"}}, "n=4, which it cannot be: it is searched in 1 to 3"),
        ({}, {"a=1": {"b": "1,2"}, "b=1": {"a": "1,2"}}, "has a cycle: b exists only when a=1; a exists only when b=1"),
        (PARAMS, {"model=cnn": {"x": "choice()"}}, "empty choice is not legal"),
        (PARAMS, {"model=cnn": {"x": "tag(log,interval(0,1))"}}, "`low > 0` must hold"),
        (PARAMS, {"model": {"x": "1,2"}}, "must begin with a condition such as optimizer=sgd, but got model"),
        (PARAMS, {"model=cnn": "1,2"}, "model=cnn must map keys to their ranges, but got 1,2"),
        (PARAMS, {"model=cnn": {"x": {"y": "1,2"}}}, "x must be a range or a value, or be a condition such as x=VALUE"),
        (PARAMS, {"model=interval(0,1)": {"x": "1,2"}}, "must name values, not a range"),
        (PARAMS, {"model=cnn": {"optimizer": "1,2"}}, "optimizer has two ranges at once"),
        (PARAMS, {"model=cnn": {"x": "1,2"}, "optimizer=sgd": {"x": "3,4"}}, "x has two ranges at once"),
        ({"x": "interval(0,1)"}, {"x=0.5": {"y": "1,2"}}, "names values of x, which is searched in a continuous range"),
        (PARAMS, {"model=cnn": {"model=mlp": {"x": "1,2"}}}, "x can never exist: when model=cnn and model=mlp its"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(params: dict[str, str], when: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        space(params, when)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_branches_that_exclude_each_other_may_have_a_range_each_for_the_same_key() -> None:
    here = space(PARAMS, {"optimizer=sgd": {"lr": "interval(0.1,1.0)"}, "optimizer=adam": {"lr": "interval(0.0,0.1)"}})
    sgd, adam = chosen(here, optimizer="sgd"), chosen(here, optimizer="adam")
    # Optuna keeps one range for a name.
    assert sgd["lr when optimizer=sgd"] > 0.1 > adam["lr when optimizer=adam"]
    assert overrides({"lr when optimizer=sgd": 0.5}, {}, []) == ["lr=0.5"]
    assert list(here.tree())[-4:] == ["when optimizer=sgd", "  lr       0.1 to 1.0", "when optimizer=adam",
                                      "  lr       0.0 to 0.1"]  # fmt: skip


def test_a_key_is_deleted_where_that_is_chosen() -> None:
    assert overrides({"~layers.conv2": True, "lr": 0.1}, {}, []) == ["lr=0.1", "~layers.conv2"]
    assert overrides({"~layers.conv2": False, "lr": 0.1}, {}, ["~x"]) == ["lr=0.1", "~x"]


@pytest.mark.parametrize(
    "domain",
    [
        IntDistribution(1, 3),
        IntDistribution(2, 8, step=3),
        IntDistribution(1, 1000, log=True),
        FloatDistribution(0.1, 0.4, step=0.1),
        FloatDistribution(1e-4, 1.0, log=True),
        FloatDistribution(-1.0, 0.0),
        CategoricalDistribution(["a"]),
    ],
)
def test_any_value_lies_in_its_range(domain: BaseDistribution) -> None:
    assert domain._contains(domain.to_internal_repr(any_value(domain)))


def test_a_condition_compares_what_overrides_write() -> None:
    condition = Condition("a", (True, "[1,2]"))
    assert str(condition) == "a=True,[1,2]"
    assert condition.holds({"a": True})
    assert condition.holds({"a": [1, 2]})
    assert not condition.holds({"a": False})
    assert not condition.holds({})


@pytest.mark.parametrize(
    ("form", "value", "chosen_value"),
    [
        ("range(0.0,0.6,step=0.2)", "0", 0.0),
        ("range(0.0,0.6,step=0.1)", "0.3", 0.30000000000000004),
        ("choice(true,false)", "true", True),
        ("choice(1,2)", "2.0", 2),
    ],
)
def test_a_condition_is_about_the_value_and_not_how_it_is_written(form: str, value: str, chosen_value: object) -> None:
    here = space({"x": form}, {f"x={value}": {"y": "1,2"}})
    assert "y" in chosen(here, x=chosen_value)
    assert any("y" in branch for branch in here.branches(lambda key: False))


def test_null_under_a_condition_is_null() -> None:
    here = space(PARAMS, {"model=mlp": {"patience": None, "sizes": [1, 2]}})
    assert overrides(chosen(here, model="mlp"), {}, [])[-2:] == ["patience=null", "sizes=[1,2]"]
