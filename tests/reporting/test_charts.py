import dataclasses
import itertools
import math
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from iolaus.reporting import charts
from iolaus.reporting.plotting import Scale, fitted, label, limits, numbers, width
from iolaus.reporting.snapshot import Snapshot
from iolaus.reporting.timeline import timeline
from iolaus.study import attributes

PICTURES: list[Callable[[Snapshot], Figure | None]] = [
    charts.history,
    charts.importances,
    charts.parallel,
    charts.slices,
    charts.intermediate,
    charts.pareto,
    timeline,
]
SPACE: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "+optimizer.weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    "+optimizer.momentum": FloatDistribution(0.0, 0.99),  # for sgd only
    "optimizer.lr": FloatDistribution(1e-5, 0.3, log=True),
    "model": CategoricalDistribution(["mlp", "mlp_dropout", "cnn", "cnn_dropout", "resnet18_pretrained_and_frozen"]),
    "model.hidden_sizes": CategoricalDistribution(["[16,32,64]", "[128]", "[512,256,128,64]"]),
    "batch_size": IntDistribution(16, 512, log=True),
    "epochs": IntDistribution(1, 5),
    "data.augment": CategoricalDistribution([True, False]),
    "scheduler.warmup_steps": IntDistribution(0, 1000, step=50),
    "a_very_long.parameter_name_of.some_layer.initial_scale": FloatDistribution(0.9, 0.9001),
    "data.mode": CategoricalDistribution([f"mode{i}" for i in range(24)]),
    "seed": IntDistribution(0, 100_000),
    "engine.clip": FloatDistribution(0.1, 10, log=True),
    "data.scale": FloatDistribution(-1, 1),
}
START = datetime(2026, 7, 1, 12)
STATES = [TrialState.COMPLETE] * 7 + [TrialState.PRUNED, TrialState.FAIL]


def snapshot_of(
    *trials: FrozenTrial,
    directions: Sequence[str] = ("maximize",),
    target: float | None = None,
) -> Snapshot:
    study = optuna.create_study(study_name="study", directions=list(directions))
    study.add_trials(trials)
    study.set_user_attr(attributes.REPORT, {"target": target})
    return Snapshot.of(study)


def complete(*values: float, **params: float) -> FrozenTrial:
    """A complete trial with parameters in [0, 1]."""
    space = dict.fromkeys(params, FloatDistribution(0, 1))
    return create_trial(values=values, params=params, distributions=space)


def ended(state: TrialState, end: str | None = None, **more: Any) -> FrozenTrial:
    return create_trial(state=state, system_attrs={} if end is None else {"iolaus:end": end}, **more)


def ran(trial: FrozenTrial, begin: float, end: float | None, host: str = "a", pid: int = 1) -> FrozenTrial:
    """The same, run by a process from and to these seconds after the start; its lease holds until second 1000."""
    trial.datetime_start = START + timedelta(seconds=begin)
    trial.datetime_complete = None if end is None else START + timedelta(seconds=end)
    expires = START.timestamp() + 1000
    trial.system_attrs["iolaus:lease"] = {"host": f"{host}/boot/pid:[1]", "pid": pid, "started": 1, "expires": expires}
    return trial


def random_snapshot(trials: int, params: int, objectives: int = 1) -> Snapshot:
    """Trials of four workers, most complete, with reports of their values, of which a few are far off."""
    rng = random.Random(trials)
    made = []
    for number in range(trials):
        state = rng.choice(STATES) if number else TrialState.COMPLETE
        chosen: dict[str, Any] = {}
        for name, domain in itertools.islice(SPACE.items(), params):
            if name == "+optimizer.momentum" and chosen["optimizer"] == "adam":
                continue
            if isinstance(domain, CategoricalDistribution):
                chosen[name] = rng.choice(domain.choices)
            elif domain.log:
                chosen[name] = type(domain.low)(math.exp(rng.uniform(math.log(domain.low), math.log(domain.high))))
            else:
                chosen[name] = domain.low + (domain.high - domain.low) * rng.randint(0, 4) // 4
        value = rng.uniform(0.9, 1.0) if rng.random() < 0.9 else 0.1
        trial = create_trial(
            state=state,
            values=[value, 1000 * rng.random(), rng.random()][:objectives] if state == TrialState.COMPLETE else None,
            params=chosen,
            distributions={name: SPACE[name] for name in chosen},
            intermediate_values={step: value - 1 / step for step in range(1, rng.randint(2, 8))},
            system_attrs={"iolaus:end": rng.choice(["failed", "lost", "interrupted"])} if state.name == "FAIL" else {},
        )
        made.append(ran(trial, 60 * (number // 4), 60 * (number // 4) + rng.uniform(20, 60), pid=4700 + number % 4))
    return snapshot_of(*made, directions=["maximize", "minimize", "minimize"][:objectives])


@pytest.fixture(scope="module")
def many() -> Snapshot:
    return random_snapshot(300, 15)


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    figure.canvas.draw()
    return figure


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


def texts(figure: Figure) -> list[Text]:
    """All that can be read."""
    found = list(figure.texts)
    for axes in panels(figure):
        if axes.axison:
            ticks = [tick for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()]
            found += [tick.label1 for tick in ticks if tick.label1.get_visible()]
            found += [axes.xaxis.label, axes.yaxis.label]
        found += axes.texts
        if (legend := axes.get_legend()) is not None:
            found += legend.get_texts()
    return [text for text in found if text.get_text() and text.get_visible()]


def words(figure: Figure | None) -> list[str]:
    return [text.get_text() for text in texts(drawn(figure))]


def dots(axes: Axes, color: str | None = None) -> set[tuple[float, float]]:
    """The places of the dots of this colour."""
    return {
        (float(x), float(y))
        for found in axes.collections
        if isinstance(found, PathCollection) and (color is None or to_hex(found.get_facecolor()[0]) == color)
        for x, y in np.asarray(found.get_offsets())
    }


def assert_readable(figure: Figure) -> None:
    """No text lies outside the picture or upon another."""
    width, height = figure.canvas.get_width_height()
    boxes = [(text, text.get_window_extent()) for text in texts(figure)]
    assert boxes
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text.get_text()} is outside: {box} of {width} x {height}"
    for (one, box), (other, its) in itertools.combinations(boxes, 2):
        across = min(box.x1, its.x1) - max(box.x0, its.x0)
        down = min(box.y1, its.y1) - max(box.y0, its.y0)
        if across <= 1 or down <= 1:
            continue
        tilted = one.get_rotation() == other.get_rotation() == 40
        apart = abs(box.x1 - its.x1) * math.sin(math.radians(40)) if tilted else 0
        assert apart > 10, f"{one.get_text()} is upon {other.get_text()}"


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize(("trials", "params", "objectives"), [(3, 3, 1), (40, 7, 2), (40, 4, 3)])
def test_texts_neither_overlap_nor_leave_the_picture(
    picture: Callable[[Snapshot], Figure | None], trials: int, params: int, objectives: int
) -> None:
    figure = picture(random_snapshot(trials, params, objectives))
    assert (figure is None) == (picture is charts.pareto and objectives == 1)
    if figure is not None:
        assert_readable(drawn(figure))


@pytest.mark.parametrize("picture", [picture for picture in PICTURES if picture not in (charts.pareto, charts.slices)])
def test_texts_stay_readable_with_many_trials_and_parameters(
    picture: Callable[[Snapshot], Figure | None], many: Snapshot
) -> None:
    assert_readable(drawn(picture(many)))


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_that_would_be_empty_is_left_out(picture: Callable[[Snapshot], Figure | None]) -> None:
    assert picture(snapshot_of()) is None
    failed = snapshot_of(ended(TrialState.FAIL), ended(TrialState.WAITING))
    assert (picture(failed) is None) == (picture is not timeline)


@pytest.mark.parametrize("picture", PICTURES)
def test_any_text_in_a_study_is_shown_as_it_is(picture: Callable[[Snapshot], Figure | None]) -> None:
    space = {"$a_b$\n": CategoricalDistribution(["$x$ $", "\u6f22\u5b57", ""]), "$": FloatDistribution(0, 1)}
    made = [
        ran(create_trial(value=i / 9, params={"$a_b$\n": choice, "$": 0.5}, distributions=space), 0, 1, "$h_$", i)
        for i, choice in enumerate(["$x$ $", "\u6f22\u5b57", ""] * 4)
    ]
    snapshot = snapshot_of(*made)
    figure = picture(snapshot)
    if picture in (charts.importances, charts.parallel, charts.slices):
        assert {r"\$a_b\$ ", r"\$"} <= set(words(figure))
    elif figure is not None:
        drawn(figure)


def test_pictures_need_no_pyplot() -> None:
    code = (
        "import sys, optuna; from iolaus.reporting import charts; from iolaus.reporting.snapshot import Snapshot;"
        "study = optuna.create_study(); study.add_trial(optuna.trial.create_trial(value=1.0));"
        "charts.history(Snapshot.of(study)).canvas.draw(); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout == "False\n"


def environment() -> dict[str, str]:
    return {"PYTHONPATH": "src", "PATH": ""}


def test_trials_that_were_surplus_are_in_no_picture() -> None:
    surplus = ran(ended(TrialState.FAIL, "surplus", intermediate_values={1: 0.5}), 0, 500, pid=9)
    snapshot = snapshot_of(ran(complete(0.5, x=0.1), 0, 5), surplus, ran(complete(0.6, x=0.2), 5, 10))
    assert charts.intermediate(snapshot) is None
    assert "process 9" not in words(timeline(snapshot))
    assert len(drawn(charts.history(snapshot)).axes) == 1


# history


@pytest.mark.parametrize(
    ("direction", "best"), [("maximize", [0.5, 0.5, 0.9, 0.9]), ("minimize", [0.5, 0.2, 0.2, 0.1])]
)
def test_the_history_shows_each_value_and_the_best_so_far(direction: str, best: list[float]) -> None:
    made = [complete(0.5), complete(0.2), ended(TrialState.PRUNED), complete(0.9), complete(0.1)]
    axes = drawn(charts.history(snapshot_of(*made, directions=[direction]))).axes[0]
    assert dots(axes, charts.BLUE) == {(0, 0.5), (1, 0.2), (3, 0.9), (4, 0.1)}
    (line,) = axes.lines
    assert line.get_drawstyle() == "steps-post"
    assert list(zip(*line.get_data(), strict=True)) == list(zip([0, 1, 3, 4], best, strict=True))
    assert axes.get_ylabel() == f"value ({direction}d)"


def test_the_history_marks_trials_without_a_value_below_by_how_they_ended() -> None:
    lost_for_good = create_trial(state=TrialState.FAIL, system_attrs={"iolaus:end": "lost", "iolaus:losses": 2})
    kinds = [ended(TrialState.FAIL, end) for end in (None, "lost", "interrupted")]
    snapshot = snapshot_of(complete(1.0), ended(TrialState.PRUNED), *kinds, lost_for_good, ended(TrialState.RUNNING))
    below = drawn(charts.history(snapshot)).axes[1]
    rows = [label.get_text() for label in below.get_yticklabels()]
    places = {rows[int(line.get_ydata()[0])]: list(line.get_xdata()) for line in below.lines}
    assert places == {"pruned": [1], "failed": [2, 5], "lost": [3], "interrupted": [4]}


@pytest.mark.parametrize(("target", "side"), [(0.9, "below"), (0.999, "above")])
def test_a_target_far_from_all_values_does_not_press_them_flat(target: float, side: str) -> None:
    axes = drawn(charts.history(snapshot_of(complete(0.98), complete(0.982), target=target))).axes[0]
    assert f"target {target:g} lies far {side}" in [text.get_text() for text in axes.get_legend().get_texts()]
    low, high = axes.get_ylim()
    assert 0.979 < low < 0.98 < 0.982 < high < 0.983


def test_the_branch_of_a_parameter_stands_in_a_second_line() -> None:
    assert label("optimizer.lr when optimizer=sgd", 2) == "optimizer.lr\n(optimizer=sgd)"


def test_a_target_is_a_line_within_the_axis() -> None:
    axes = drawn(charts.history(snapshot_of(complete(0.5), complete(0.6), target=0.9))).axes[0]
    assert "target 0.9" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert axes.get_ylim()[1] > 0.9


def test_each_objective_has_a_history_of_its_own() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([complete(1.0, 5.0), complete(2.0, 3.0)])
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["accuracy", "seconds"])
    snapshot = Snapshot.of(study)
    one, other = drawn(charts.history(snapshot)).axes
    assert (one.get_ylabel(), other.get_ylabel()) == ("accuracy (maximized)", "seconds (minimized)")
    assert list(one.lines[0].get_ydata()) == [1.0, 2.0]
    assert list(other.lines[0].get_ydata()) == [5.0, 3.0]


def test_values_far_off_do_not_press_the_others_flat() -> None:
    values = [0.1, *(0.95 + 0.002 * i for i in range(20)), -math.inf]
    figure = drawn(charts.history(snapshot_of(*map(complete, values))))
    axes = figure.axes[0]
    assert axes.get_ylim()[0] > 0.9
    low = min(y for _, y in dots(axes))
    assert {(0.0, low), (21.0, low)} <= dots(axes)  # at the edge, which lies within the axis
    assert low > axes.get_ylim()[0]
    assert "beyond the axis" in words(figure)


def test_what_breaks_a_constraint_is_no_best() -> None:
    broken = create_trial(value=0.9, constraints={"size": 1.0})
    axes = drawn(charts.history(snapshot_of(complete(0.5), broken))).axes[0]
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.5]
    assert dots(axes, charts.GREY) == {(1, 0.9)}


# importances


def shares(figure: Figure) -> dict[str, str]:
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, [text.get_text() for text in axes.texts], strict=True))


def test_the_parameter_that_matters_is_the_most_important_one() -> None:
    rng = random.Random(0)
    made = [(rng.random(), rng.random()) for _ in range(60)]
    figure = drawn(charts.importances(snapshot_of(*(complete(-abs(a - 0.3), a=a, b=b) for a, b in made))))
    found = shares(figure)
    assert list(found) == ["b", "a"]  # from below
    assert int(found["a"].removesuffix(" %")) > 80
    assert "best 6 from all 60 complete trials" in figure.axes[0].get_xlabel()


def test_of_few_trials_at_least_five_are_the_best() -> None:
    axes = drawn(charts.importances(snapshot_of(*(complete(i / 20, x=i / 20) for i in range(20))))).axes[0]
    assert "best 5 from all 20 complete trials" in axes.get_xlabel()


def test_a_parameter_that_only_some_trials_have_has_an_importance() -> None:
    rng = random.Random(0)
    made = []
    for i in range(60):
        a, b = rng.random(), rng.random()
        made.append(complete(1 - abs(a - 0.3), a=a, b=b) if i % 2 else complete(0.1 * rng.random(), b=b))
    found = shares(drawn(charts.importances(snapshot_of(*made))))
    assert int(found["a"].removesuffix(" %")) > int(found["b"].removesuffix(" %")) > 0


def test_a_parameter_of_a_single_trial_is_missing_where_that_is_not_drawn_and_hinders_nothing() -> None:
    made = [complete(i / 12, a=i / 12, **({"b": 0.5} if i == 5 else {})) for i in range(12)]
    assert "a" in shares(drawn(charts.importances(snapshot_of(*made))))


def test_an_importance_has_an_interval_and_where_they_overlap_there_are_too_few_trials() -> None:
    rng = random.Random(0)
    made = [(rng.random(), rng.random()) for _ in range(100)]
    clear = drawn(charts.importances(snapshot_of(*(complete(-abs(a - 0.3), a=a, b=b) for a, b in made)))).axes[0]
    noise = drawn(charts.importances(snapshot_of(*(complete(rng.random(), a=a, b=b) for a, b in made[:20])))).axes[0]
    assert "too few trials" not in clear.get_xlabel()
    assert "too few trials to say which parameter matters most: the intervals overlap" in noise.get_xlabel()
    for axes, apart in ((clear, True), (noise, False)):
        (segments,) = [bars.get_segments() for bars in axes.collections]
        below, above = [(low, high) for (low, _), (high, _) in segments]  # the most important one is above
        assert below[0] < below[1]
        assert above[0] < above[1]
        assert (above[0] > below[1]) == apart


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.1 * i for i in range(9)], "9 complete trials are too few to tell what matters: it takes 10"),
        ([0.5] * 12, "no parameter tells the best trials from the others"),
    ],
)
def test_importances_that_cannot_be_told_are_not_drawn(values: list[float], says: str) -> None:
    snapshot = snapshot_of(*(complete(value, x=i / 12) for i, value in enumerate(values)))
    assert words(charts.importances(snapshot)) == [says]


def test_importances_that_fail_say_why(monkeypatch: pytest.MonkeyPatch, many: Snapshot) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(optuna.importance, "get_param_importances", fail)
    assert words(charts.importances(dataclasses.replace(many))) == [
        "what matters could not be told: RuntimeError: no luck"
    ]


# parallel


def test_a_line_passes_its_values_on_axes_that_are_logarithmic_where_their_ranges_are() -> None:
    space: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(1e-4, 1, log=True),
        "x": FloatDistribution(0, 10),
        "kind": CategoricalDistribution(["a", "b"]),
    }
    params = {"lr": 0.01, "x": 2.0, "kind": "b"}
    figure = drawn(charts.parallel(snapshot_of(create_trial(value=0.5, params=params, distributions=space))))
    *scales, _value, base = figure.axes
    assert [axes.get_xscale() for axes in scales] == ["log", "linear", "linear"]
    (line,) = base.collections[0].get_segments()
    assert [text.get_text() for text in figure.texts] == ["lr", "x", "kind", "value (maximized)"]
    for axes, place, point in zip(scales, (0.01, 2.0, 1), line, strict=False):
        x, y = axes.transData.transform((place, 0))
        shown = base.transData.transform(point)
        assert shown[0] == pytest.approx(x, abs=100 if axes is scales[2] else 0.5)  # choices are spread
        assert shown[1] == pytest.approx(y, abs=1)


def test_who_lacks_a_parameter_passes_at_the_left_of_its_axis() -> None:
    figure = drawn(charts.parallel(snapshot_of(complete(0.5, a=0.1, b=0.1), complete(0.7, a=0.2))))
    absent = next(text for text in figure.texts if text.get_text() == "absent")
    axes, base = figure.axes[1], figure.axes[-1]
    lacking = next(line for line in base.collections[0].get_segments() if line[1][0] < 3)
    x, _ = base.transData.transform(lacking[1])
    assert x < axes.get_window_extent().x0
    box = absent.get_window_extent()
    assert box.x0 < x < box.x1
    assert box.y1 < axes.get_window_extent().y1 < box.y1 + 20


@pytest.mark.parametrize(("direction", "best"), [("maximize", 0.9), ("minimize", 0.1)])
def test_the_best_trial_stands_out_and_lies_on_top(direction: str, best: float) -> None:
    snapshot = snapshot_of(*(complete(x, x=x) for x in (0.5, 0.9, 0.1)), directions=[direction])
    base = drawn(charts.parallel(snapshot)).axes[-1]
    lines, emphasised = base.collections
    (line,) = emphasised.get_segments()
    assert to_hex(emphasised.get_color()[0]) == charts.RED
    assert (line == lines.get_segments()[-1]).all()
    far_right = max(segment[0][0] for segment in lines.get_segments())
    assert (line[0][0] == far_right) == (best == 0.9)


# slices


def test_a_slice_shows_values_over_a_parameter() -> None:
    snapshot = snapshot_of(complete(0.5, x=0.1), complete(0.7, x=0.2), complete(0.6, x=0.9))
    figure = drawn(charts.slices(snapshot))
    panel = figure.axes[0]
    assert panel.get_xlabel() == "x"
    assert {(0.1, 0.5), (0.2, 0.7), (0.9, 0.6)} == dots(panel)
    rings = [found for found in panel.collections if not len(found.get_facecolor())]
    assert [tuple(ring.get_offsets()[0]) for ring in rings] == [(0.2, 0.7)]


def test_slices_have_the_scales_and_the_choices_of_many_parameters_and_stay_readable(many: Snapshot) -> None:
    figure = drawn(charts.slices(many))
    assert_readable(figure)
    found = {axes.get_xlabel().split("\n")[0]: axes for axes in panels(figure)}
    logarithmic = {name for name, axes in found.items() if axes.get_xscale() == "log"}
    assert logarithmic == {"optimizer.weight_decay", "optimizer.lr", "batch_size", "engine.clip"}
    labels = [label.get_text() for label in found["model.hidden_sizes"].get_xticklabels()]
    assert labels == ["[16,32,64]", "[128]", "[512,256,128,64]"]
    assert [label.get_text() for label in found["epochs"].get_xticklabels()] == ["1", "2", "3", "4", "5"]
    for axes in found.values():
        for x, _ in dots(axes):
            assert axes.get_xlim()[0] <= x <= axes.get_xlim()[1]


def test_slices_say_how_many_trials_have_a_parameter() -> None:
    snapshot = snapshot_of(complete(0.5, a=0.1, b=0.1), complete(0.7, a=0.2), complete(0.8, a=0.3))
    assert {"a", "b\n(in 1 of 3 trials)"} <= set(words(charts.slices(snapshot)))


def test_slices_of_several_objectives_have_rows_of_their_own() -> None:
    snapshot = snapshot_of(complete(1.0, 5.0, x=0.1), complete(2.0, 3.0, x=0.2), directions=["maximize", "minimize"])
    one, other, _ = drawn(charts.slices(snapshot)).axes
    assert dots(one) == {(0.1, 1.0), (0.2, 2.0)}
    assert dots(other) == {(0.1, 5.0), (0.2, 3.0)}


def test_a_parameter_with_one_possible_value_is_left_out() -> None:
    space = {"x": FloatDistribution(0, 1), "fixed": CategoricalDistribution(["a"]), "n": IntDistribution(3, 3)}
    made = [create_trial(value=x, params={"x": x, "fixed": "a", "n": 3}, distributions=space) for x in (0.1, 0.2)]
    assert {axes.get_xlabel() for axes in panels(drawn(charts.slices(snapshot_of(*made))))} == {"x", "trial"}


# intermediate values


def reporting(state: TrialState, *values: float) -> FrozenTrial:
    last = values[-1] if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=last, intermediate_values=dict(enumerate(values, start=1)))


def test_reports_are_curves_of_which_the_pruned_are_dashed_and_the_best_is_black() -> None:
    best = reporting(TrialState.COMPLETE, 0.3, 0.8, 0.9)
    snapshot = snapshot_of(
        reporting(TrialState.COMPLETE, 0.1, 0.5, 0.6), best, reporting(TrialState.PRUNED, 0.05, math.nan, 0.1)
    )
    figure = drawn(charts.intermediate(snapshot))
    (axes,) = figure.axes
    found = {to_hex(c.get_color()[0]): c for c in axes.collections if isinstance(c, LineCollection)}
    assert found.keys() == {charts.BLUE, charts.ORANGE}
    np.testing.assert_array_equal(found[charts.BLUE].get_segments()[0], [[1, 0.1], [2, 0.5], [3, 0.6]])
    (_, solid), (_, dashed) = (found[color].get_linestyle()[0] for color in (charts.BLUE, charts.ORANGE))
    assert solid is None
    assert dashed is not None
    (line,) = axes.lines
    assert line.get_color() == "black"
    np.testing.assert_array_equal(line.get_xydata(), [[1, 0.3], [2, 0.8], [3, 0.9]])
    assert {"complete (1)", "pruned (1)", "best: trial 1"} <= set(words(figure))


def test_no_other_trial_is_called_the_best_where_the_best_has_reported_nothing() -> None:
    snapshot = snapshot_of(complete(0.9), reporting(TrialState.COMPLETE, 0.1, 0.2))
    figure = drawn(charts.intermediate(snapshot))
    assert not figure.axes[0].lines
    assert "complete (1)" in words(figure)


def test_without_any_number_among_the_reports_there_is_no_picture() -> None:
    assert charts.intermediate(snapshot_of(reporting(TrialState.PRUNED, math.nan))) is None


# timeline


def bars(figure: Figure) -> dict[tuple[str, int], list[tuple[float, float, str]]]:
    """Begin, end and hatch of the bars by their lane and colour."""
    (axes,) = figure.axes
    lanes = [label.get_text() for label in axes.get_yticklabels()]
    found: dict[Any, Any] = {}
    for bar in axes.patches:
        lane = lanes[round(bar.get_y() + bar.get_height() / 2)]
        span = round(bar.get_x(), 3), round(bar.get_x() + bar.get_width(), 3), bar.get_hatch()
        found.setdefault((lane, to_hex(bar.get_facecolor())), []).append(span)
    return found


def test_each_process_has_a_lane_in_which_its_trials_are_bars() -> None:
    snapshot = snapshot_of(
        ran(complete(0.1), 0, 30, pid=11),
        ran(ended(TrialState.PRUNED), 10, 20, pid=12),
        ran(complete(0.2), 30, 60, pid=11),
        ran(ended(TrialState.FAIL, "interrupted"), 30, 50, pid=12),
    )
    figure = drawn(timeline(snapshot))
    assert bars(figure) == {
        ("process 11", charts.BLUE): [(0, 30, None), (30, 60, None)],
        ("process 12", charts.ORANGE): [(10, 20, None)],
        ("process 12", charts.GREY): [(30, 50, "....")],
    }
    assert figure.axes[0].get_xlabel() == "seconds since 2026-07-01 12:00"
    assert figure.axes[0].yaxis_inverted()  # the first at the top
    star = next(line for line in figure.axes[0].lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (45, 0)


def test_lanes_of_several_hosts_are_told_apart() -> None:
    figure = timeline(snapshot_of(ran(complete(0.1), 0, 30, host="one"), ran(complete(0.2), 0, 30, host="two")))
    assert {"one 1", "two 1"} <= set(words(figure))


def test_what_another_program_has_run_is_in_a_lane_of_its_own() -> None:
    assert "unknown" in words(timeline(snapshot_of(complete(0.5))))


def test_a_lost_or_running_trial_lasts_as_long_as_its_lease() -> None:
    snapshot = snapshot_of(
        ran(ended(TrialState.FAIL, "lost"), 0, 90_000), ran(ended(TrialState.RUNNING), 400, None, pid=2)
    )
    found = bars(drawn(timeline(snapshot)))  # in minutes
    assert found[("process 1", charts.PINK)] == [(0, pytest.approx(1000 / 60, abs=0.01), "////")]
    assert found[("process 2", charts.SKY)] == [(pytest.approx(6.667), pytest.approx(16.667), "||")]


def test_a_pause_of_all_workers_is_cut_out() -> None:
    day = 86_400
    snapshot = snapshot_of(
        ran(complete(0.1), 0, 600), ran(complete(0.2), 610, 1200), ran(complete(0.3), day, day + 600, pid=2)
    )
    figure = drawn(timeline(snapshot))
    assert bars(figure) == {
        ("process 1", charts.BLUE): [(0, 10, None), (10.167, 20, None)],
        ("process 2", charts.BLUE): [(20, 30, None)],
    }
    assert figure.axes[0].get_xlabel() == "minutes since 2026-07-01 12:00, without pauses"
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"] == [20]


def test_hundreds_of_processes_still_have_readable_lanes() -> None:
    made = [ran(complete(0.5), i, i + 20, host=f"a-node-with-a-long-name-{i % 9}", pid=i) for i in range(300)]
    assert_readable(drawn(timeline(snapshot_of(*made))))


# pareto


def front_of(values: Sequence[tuple[float, ...]], directions: Sequence[str]) -> set[tuple[float, ...]]:
    """Return those that no other beats in all objectives."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        signed = zip(directions, one, other, strict=True)
        return one != other and all(a <= b if direction == "minimize" else a >= b for direction, a, b in signed)

    return {value for value in values if not any(beats(other, value) for other in values)}


@pytest.mark.parametrize("directions", list(itertools.product(["minimize", "maximize"], repeat=2)))
def test_the_front_is_emphasised_and_its_line_goes_round_what_it_beats(directions: tuple[str, str]) -> None:
    rng = random.Random(1)
    values = [(rng.random(), rng.random()) for _ in range(40)]
    snapshot = snapshot_of(*(complete(*both) for both in values), directions=directions)
    front = front_of(values, directions)
    axes = drawn(charts.pareto(snapshot)).axes[0]
    assert dots(axes, charts.RED) == front
    assert dots(axes, charts.GREY) == set(values) - front
    (line,) = axes.lines
    points = [tuple(point) for point in line.get_xydata()]
    assert set(points) == front
    signs = [1 if direction == "minimize" else -1 for direction in directions]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        corner = (x1, y0) if line.get_drawstyle() == "steps-post" else (x0, y1)
        assert any(all(s * a <= s * b for s, a, b in zip(signs, point, corner, strict=True)) for point in front)


def test_three_objectives_have_a_panel_for_each_pair() -> None:
    snapshot = random_snapshot(40, 1, objectives=3)
    values = [tuple(trial.values) for trial in snapshot.complete]
    front = front_of(values, ["maximize", "minimize", "minimize"])
    found = panels(drawn(charts.pareto(snapshot)))
    assert [(axes.get_xlabel()[:7], axes.get_ylabel()[:7]) for axes in found] == [
        ("value 0", "value 1"),
        ("value 0", "value 2"),
        ("value 1", "value 2"),
    ]
    assert dots(found[2], charts.RED) == {(b, c) for _, b, c in front}


# axes


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1e-5, 1e-4, 0.001, 0.1], ["1e-5", "1e-4", "0.001", "0.1"]),
        ([0.9, 0.90001, 0.90002], ["0.9", "0.90001", "0.90002"]),
        ([0, 50_000, 100_000], ["0", "50000", "100000"]),
        ([-2.5e-7, 3e9], ["-2.5e-7", "3e9"]),
        ([128.0, 1024.0], ["128", "1024"]),
    ],
)
def test_numbers_are_short_and_can_be_told_apart(values: list[float], texts: list[str]) -> None:
    assert numbers(values) == texts


@pytest.mark.parametrize(("low", "high"), [(1e-5, 0.3), (8, 512), (0.1, 0.15), (1e-12, 1e3), (1, 2)])
def test_a_logarithmic_axis_has_a_few_round_ticks_within(low: float, high: float) -> None:
    ticks, _ = Scale("x", low, high, log=True)._numbers(2)
    assert 2 <= len(ticks) <= 8
    assert low * 0.99 <= min(ticks) < max(ticks) <= high * 1.01


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    short = fitted("resnet18_pretrained_and_frozen_v2", 1.0, 8)
    assert short.startswith("resnet")
    assert short.endswith("_v2")
    assert 0.85 < width(short, 8) <= 1.0
    assert fitted("mlp", 1.0, 8) == "mlp"


def test_an_axis_shows_all_values_unless_some_are_much_worse_than_the_median() -> None:
    near = np.linspace(0.9, 1.0, 21)
    assert limits(near, -1) == (pytest.approx(0.9), pytest.approx(1.0))
    assert limits(np.array([0.1, *near]), -1)[0] > 0.7
    assert limits(np.array([0.1, *near]), 1)[0] == 0.1  # the best of all if smaller is better
    assert limits(np.array([0.1, 0.99, 1.0]), -1)[0] == 0.1  # too few to judge
    assert limits(np.full(20, 2.0), 1) == (pytest.approx(1.8), pytest.approx(2.2))
