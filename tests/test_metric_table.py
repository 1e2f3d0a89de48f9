"""Facts about metrics, and how values are written."""

import pytest

from iolaus import metric_table
from iolaus.compare.statistics import format_difference, format_mean, format_value


@pytest.mark.parametrize(
    ("name", "known"),
    [("accuracy", "accuracy"), ("test/accuracy", "accuracy"), ("val_accuracy", "accuracy"), ("train/loss", "loss"),
     ("fit_s", "fit_s"), ("best/fit_s", "fit_s"), ("inaccuracy", None), ("accuracy/top5", None), ("value", None),
     ("hyperparams", None), ("s", None)],
)  # fmt: skip
def test_a_metric_is_known_by_the_last_part_of_its_name(name: str, known: str | None) -> None:
    expected = metric_table.UNKNOWN if known is None else metric_table.METRICS[known]
    assert metric_table.of(name) is expected


@pytest.mark.parametrize(
    ("name", "value", "shown", "compared"),
    [
        ("val/accuracy", 0.98765, "98.77 %", "98.77 %"),
        ("val/loss", 0.0123456789, "0.0123", "0.0123457"),
        ("fit_s", 12.3456789, "12.3 s", "12.3457"),
        ("params", 1_234_567, "1,234,567", "1.23457e+06"),
        ("images_per_s", 12345.6, "12,346 images/s", "12345.6"),
        ("energy", 12345.678, "12345.7", "12345.7"),
    ],
)
def test_each_metric_is_written_in_its_own_form(name: str, value: float, shown: str, compared: str) -> None:
    metric = metric_table.of(name)
    assert metric.shown(value) == shown
    assert metric.compared(value) == format_value(value, name) == compared


def test_a_mean_and_a_difference_have_one_unit() -> None:
    row = {"mean": 0.98765, "interval": 0.0012, "n": 3, "difference": -0.0123, "difference_interval": 0.004}
    assert format_mean(row, "val/accuracy") == "98.77 ± 0.12 % (n = 3)"
    assert format_mean(row, "val/loss") == "0.98765 ± 0.0012 (n = 3)"
    assert format_difference(row, "val/accuracy") == "-1.23 ± 0.40 %"
    assert format_difference(row, "val/loss") == "-0.0123 ± 0.004"
    alone = {**row, "difference": 0.5, "difference_interval": None}
    assert format_difference(alone, "accuracy") == "+50.00 %"
