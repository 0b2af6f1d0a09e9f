"""Intervals cover what they say, keep their laws, and survive having nothing to tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfplanner.bench.stats import mean_interval, percentiles, t_quantile, wilson
from dfplanner.types import DFPlannerError


@pytest.mark.parametrize(
    ("df", "expected"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (199, 1.9720), (10**6, 1.9600)]
)
def test_t_quantile_is_the_printed_table(df: int, expected: float) -> None:
    assert t_quantile(df) == pytest.approx(expected, abs=5e-5)


def test_wilson_inverts_the_score_test() -> None:
    """At each end p0 of the interval, |p - p0| is exactly 1.96 of its standard errors: the definition."""
    for k, n in ((1, 10), (7, 10), (98, 100), (199, 200)):
        e = wilson(k, n)
        assert e.lo is not None and e.hi is not None
        for p0 in (e.lo, e.hi):
            assert abs(k / n - p0) / math.sqrt(p0 * (1 - p0) / n) == pytest.approx(1.959964, abs=1e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_rate_and_mirrors(kn: tuple[int, int]) -> None:
    k, n = kn
    e, mirror = wilson(k, n), wilson(n - k, n)
    assert e.mean is not None and e.lo is not None and e.hi is not None and mirror.hi is not None
    assert 0 <= e.lo <= e.mean <= e.hi <= 1 and e.lo < e.hi
    assert mirror.hi == pytest.approx(1 - e.lo)


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(DFPlannerError, match="5 successes in 3 trials"):
        wilson(5, 3)


@given(st.lists(st.floats(0, 300), min_size=2, max_size=40), st.floats(-5, 5), st.floats(0.1, 10))
def test_mean_interval_moves_and_stretches_with_the_data(x: list[float], shift: float, scale: float) -> None:
    e, f = mean_interval(x), mean_interval(np.array(x) * scale + shift)
    assert [f.mean, f.lo, f.hi] == pytest.approx([v * scale + shift for v in (e.mean, e.lo, e.hi)], abs=1e-6)  # type: ignore[operator]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_mean_interval_stays_where_the_quantity_can_be(x: list[float]) -> None:
    e = mean_interval(x, 0, 1)
    assert e.lo is not None and e.hi is not None and e.mean is not None
    assert 0 <= e.lo <= e.mean <= e.hi <= 1


@pytest.mark.parametrize("n", [5, 20, 200])
def test_95_percent_intervals_cover_the_truth_about_that_often(n: int) -> None:
    """Returns of a maze: 300 less a skewed time to the goal; and rates near 1."""
    rng = np.random.default_rng(n)
    trials, truth = 2000, 300 - 4 * 18.0
    hits = 0
    for x in 300 - rng.gamma(4, 18, (trials, n)):
        e = mean_interval(x)
        hits += e.lo <= truth <= e.hi  # type: ignore[operator]
    assert 0.925 <= hits / trials <= 0.97
    rates = [wilson(int(k), n) for k in rng.binomial(n, 0.9, trials)]
    assert np.mean([e.lo <= 0.9 <= e.hi for e in rates]) >= 0.91  # type: ignore[operator]


def test_nothing_measured_is_null_not_nan() -> None:
    assert mean_interval([]).to_dict() == {"mean": None, "lo": None, "hi": None, "n": 0}
    assert mean_interval([np.nan, np.nan]) == mean_interval([]) == wilson(0, 0)
    assert mean_interval([3.0]).to_dict() == {"mean": 3.0, "lo": None, "hi": None, "n": 1}
    assert mean_interval([np.nan, 1, 3]) == mean_interval([1, 3])
    assert percentiles([]) == {"p50": None, "p99": None}


def test_percentiles_are_of_the_times() -> None:
    assert percentiles(np.arange(101)) == {"p50": 50.0, "p99": 99.0}
