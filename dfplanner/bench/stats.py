"""What a number is worth: means and rates with their 95 % intervals, and percentiles of times.

Success rates have Wilson's interval (Wilson 1927): it never leaves [0, 1] and does not shrink to nothing at
200 of 200. Means have Student's t interval, cut to what the quantity can be. On returns as skewed as a maze's
(failures at 0) it covers within 2 % of what a BCa bootstrap does from 20 episodes on and clearly better with
fewer (5: .92 against .82), it needs no random numbers, and anyone can redo it from the JSON. Few failures,
few episodes: no interval covers well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from dfplanner.types import DFPlannerError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` episodes and its interval; None where n episodes cannot tell (0: nothing, 1: no
    interval).
    """

    mean: float | None
    lo: float | None
    hi: float | None
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON-ready: {"mean", "lo", "hi", "n"}, None becoming null."""
        return {"mean": self.mean, "lo": self.lo, "hi": self.hi, "n": self.n}


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """The rate of ``successes`` in ``n`` trials, as a fraction, with Wilson's score interval.

    Raises DFPlannerError unless 0 <= successes <= n. No trial: all None.
    """
    if not 0 <= successes <= n:
        raise DFPlannerError(f"{successes} successes in {n} trials came; expected 0 <= successes <= trials")
    if n == 0:
        return Estimate(None, None, None, 0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and n the formula's end is the rate itself up to rounding; the interval must hold its mean.
    return Estimate(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n)


def mean_interval(
    values: ArrayLike, low: float = -math.inf, high: float = math.inf, confidence: float = CONFIDENCE
) -> Estimate:
    """The mean of ``values`` (n,) with Student's t interval, cut to [low, high], where the quantity must lie.

    NaN counts as "not measured" and is left out of n. Nothing measured: all None; one value: no interval.
    """
    x = np.asarray(values, np.float64).ravel()
    x = x[~np.isnan(x)]
    if x.size == 0:
        return Estimate(None, None, None, 0)
    mean = float(x.mean())
    if x.size == 1:
        return Estimate(mean, None, None, 1)
    half = t_quantile(x.size - 1, confidence) * float(x.std(ddof=1)) / math.sqrt(x.size)
    return Estimate(mean, min(mean, max(low, mean - half)), max(mean, min(high, mean + half)), x.size)


@lru_cache(maxsize=256)
def t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """The q with P(|T| <= q) = confidence for Student's T with ``df`` degrees of freedom (about 6 digits).

    With T = sqrt(df)·tan θ the density of θ is proportional to cos^(df-1) θ on (-π/2, π/2): a smooth
    integral.
    """
    if df > 100_000:
        return NormalDist().inv_cdf(0.5 + confidence / 2)
    theta = np.linspace(0.0, np.pi / 2, 100_001)
    density = np.cos(theta) ** (df - 1)
    mass = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return math.sqrt(df) * math.tan(float(np.interp(confidence, mass / mass[-1], theta)))


def percentiles(milliseconds: ArrayLike) -> dict[str, float | None]:
    """{"p50", "p99"} of times; both None (JSON: null) if there are none."""
    x = np.asarray(milliseconds, np.float64).ravel()
    if x.size == 0:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(x, (50, 99))
    return {"p50": float(p50), "p99": float(p99)}
