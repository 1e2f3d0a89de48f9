import math

import pytest
from scipy import stats

from iolaus.compare.statistics import Mean, mean_of, paired, unpaired
from iolaus.metric_table import PERCENT

A, B = [0.991, 0.989, 0.993, 0.990, 0.992], [0.988, 0.989, 0.990, 0.989, 0.987]


def test_a_mean_has_students_interval() -> None:
    found = mean_of(A)
    low, high = stats.t.interval(0.95, 4, stats.tmean(A), stats.sem(A))
    assert found.mean == pytest.approx(stats.tmean(A))
    assert (found.mean - found.interval, found.mean + found.interval) == pytest.approx((low, high))
    assert mean_of([0.5]) == Mean(0.5, None, 1)


def test_a_paired_comparison_is_the_paired_t_test_of_the_seeds_that_both_have() -> None:
    found = paired(dict(enumerate(A)) | {9: 0.0}, dict(enumerate(B)) | {8: 1.0})
    expected = stats.ttest_rel(A, B)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.n == 5
    low, high = expected.confidence_interval(0.95)
    assert (found.mean - found.interval, found.mean + found.interval) == pytest.approx((low, high))
    assert found.significant == (expected.pvalue < 0.05)


def test_an_unpaired_comparison_is_welchs() -> None:
    found = unpaired(A, B[:3])
    expected = stats.ttest_ind(A, B[:3], equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (found.mean - found.interval, found.mean + found.interval) == pytest.approx((low, high))


def test_where_all_differences_agree_nothing_is_known_of_the_noise() -> None:
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1
    same = paired(dict.fromkeys(range(3), 0.97 + 1 / 300), dict.fromkeys(range(3), 0.97))
    assert same.p is None
    assert not same.significant
    assert not unpaired([1.0, 1.0], [2.0, 2.0]).significant


def test_of_fewer_than_two_values_nothing_is_told_apart() -> None:
    assert paired({0: 1.0}, {0: 2.0}).p is None
    assert not paired({0: 1.0}, {0: 2.0}).significant
    assert math.isnan(paired({0: 1.0}, {1: 2.0}).mean)
    assert unpaired([1.0], [2.0, 2.1]).p is None


def test_a_mean_in_words_has_its_interval_and_n() -> None:
    assert Mean(0.99064, 0.00028, 30).format(PERCENT) == "99.06 ± 0.03 % (n = 30)"
    assert Mean(0.123456789, 0.0123, 5).format() == "0.123457 ± 0.012 (n = 5)"
    assert Mean(0.5, None, 1).format() == "0.5 (n = 1)"
