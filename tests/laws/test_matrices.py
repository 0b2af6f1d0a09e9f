"""The laws of scheduling matrices, for any number of tokens, levels, steps and any scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfplanner import matrices as mx
from dfplanner.types import DFPlannerError

TOKENS = st.integers(1, 9)
SCALES = st.one_of(st.integers(0, 12).map(float), st.floats(0, 12, allow_nan=False))


@st.composite
def level_lists(draw: st.DrawFn) -> mx.Matrix:
    k = draw(st.integers(1, 1000))
    return mx.level_list(k, draw(st.integers(1, min(k, 12))))


@st.composite
def any_matrix(draw: st.DrawFn) -> tuple[str, mx.Matrix, mx.Matrix]:
    """Its name, the matrix and the level list."""
    name, tokens, levels = draw(st.sampled_from(sorted(mx.SCHEMES))), draw(TOKENS), draw(level_lists())
    scale = float(draw(st.integers(1, tokens))) if name == "rolling" else draw(SCALES)
    return name, mx.scheme(name, tokens, levels, scale), levels


def falls(matrix: mx.Matrix, levels: mx.Matrix) -> mx.Matrix:
    """How many entries of the level list every column has fallen in every row; fails where a level is not in it."""
    place = np.searchsorted(levels, matrix)
    assert (levels[place] == matrix).all()
    return len(levels) - 1 - place


@given(st.integers(1, 2000).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k))))
def test_a_level_list_rises_evenly_from_0_to_k(kn: tuple[int, int]) -> None:
    k, n = kn
    levels = mx.level_list(k, n)
    assert (levels[0], levels[-1], len(levels)) == (0, k, n + 1)
    assert (np.diff(levels) >= 1).all() and np.abs(np.diff(levels) - k / n).max() <= 1


@given(any_matrix())
def test_every_matrix_falls_from_noise_to_clean_by_single_steps(drawn: tuple[str, mx.Matrix, mx.Matrix]) -> None:
    name, matrix, levels = drawn
    assert (matrix[0] == levels[-1]).all() and (matrix[-1] == 0).all()
    steps = np.diff(falls(matrix, levels), axis=0)
    assert ((steps == 0) | (steps == 1)).all()
    assert steps.any(1).all(), "a row in which nothing moves costs a model call for nothing"
    if name == "trapezoid":
        assert (matrix == matrix[:, ::-1]).all()
        half = matrix[:, : (matrix.shape[1] + 1) // 2]
        assert (np.diff(half, axis=1) >= 0).all()
    else:
        assert (np.diff(matrix, axis=1) >= 0).all(), "the near future must be the more certain"


@given(TOKENS, level_lists())
def test_the_ends_of_the_pyramid(tokens: int, levels: mx.Matrix) -> None:
    n = len(levels) - 1
    full = mx.pyramid(tokens, levels, 0)
    assert (full == mx.full_sequence(tokens, levels)).all() and full.shape == (n + 1, tokens)
    one_by_one = mx.pyramid(tokens, levels, n)
    assert (one_by_one == mx.autoregressive(tokens, levels)).all() and one_by_one.shape == (n * tokens + 1, tokens)
    moving = np.diff(one_by_one, axis=0) != 0
    assert (moving.sum(1) == 1).all(), "autoregressive: one token at a time"
    assert (mx.pyramid(tokens, levels, 3 * n) == one_by_one).all(), "no token waits for longer than that"


@given(TOKENS, level_lists(), SCALES)
def test_a_token_starts_scale_rows_after_the_one_before(tokens: int, levels: mx.Matrix, scale: float) -> None:
    matrix = mx.pyramid(tokens, levels, scale)
    start = (matrix == levels[-1]).sum(0) - 1
    wait = min(scale, len(levels) - 1)
    assert (np.abs(start - np.arange(tokens) * wait) < 1).all() and (start <= np.arange(tokens) * wait + 1e-6).all()


def test_half_a_row_a_token_means_two_tokens_a_row() -> None:
    assert mx.pyramid(5, np.array([0, 1, 2]), 0.5).tolist() == [
        [2, 2, 2, 2, 2],
        [1, 1, 2, 2, 2],
        [0, 0, 1, 1, 2],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]


@given(st.integers(1, 24), level_lists(), st.data())
def test_a_rolling_window_holds_at_most_its_tokens(tokens: int, levels: mx.Matrix, data: st.DataObject) -> None:
    window = data.draw(st.integers(1, tokens))
    matrix = mx.rolling(tokens, levels, window)
    between = ((matrix > 0) & (matrix < levels[-1])).sum(1)
    assert between.max() <= window
    n = len(levels) - 1
    if n >= 2 * window and tokens >= 3 * window:  # and holds them, once it has rolled in
        assert between.max() >= window - 1


def skyreels(frames: int, timesteps: list[int], ar_step: int) -> list[list[int]]:
    """SkyReels-V2's asynchronous schedule (arXiv 2504.13074, section 3.4), as it defines it: a counter for each frame,
    0 not begun, i = evaluated at the i-th timestep, n + 1 clean. The first frame's counter rises by one a row; any
    other lies ``ar_step`` behind the frame before it, and rises by one a row once that has had its last evaluation."""
    n = len(timesteps)
    value = [timesteps[0], *timesteps, 0]
    count, rows = [0] * frames, []
    while min(count) < n:
        new: list[int] = []
        for i in range(frames):
            behind = count[i] + 1 if i == 0 or count[i - 1] >= n else new[i - 1] - ar_step
            new.append(behind)
        count = [min(max(c, 0), n + 1) for c in new]
        rows.append([value[c] for c in count])
    return rows


@given(st.integers(1, 9), level_lists(), st.integers(0, 15))
def test_the_pyramid_is_skyreels_asynchronous_matrix(frames: int, levels: mx.Matrix, ar_step: int) -> None:
    timesteps = levels[:0:-1].tolist()
    ours = mx.pyramid(frames, levels, ar_step)
    assert ours[:-1].tolist() == skyreels(frames, timesteps, ar_step)


@given(any_matrix(), level_lists(), st.data())
def test_observations_then_actions(
    drawn: tuple[str, mx.Matrix, mx.Matrix], action_levels: mx.Matrix, data: st.DataObject
) -> None:
    _, observations, _ = drawn
    rows, tokens = observations.shape
    k = int(action_levels[-1])
    start = data.draw(st.integers(0, tokens))
    chunks = range(start, data.draw(st.integers(start, tokens)))
    matrix = mx.observations_then_actions(observations, action_levels, chunks, k)
    n = len(action_levels) - 1 if len(chunks) else 0
    assert matrix.shape == (rows + n, tokens, 2)
    assert (matrix[:rows, :, 0] == observations).all() and (matrix[rows - 1 :, :, 0] == observations[-1]).all()
    assert (matrix[:rows, :, 1] == k).all(), "actions wait for the observations"
    inside = np.isin(np.arange(tokens), list(chunks))
    assert (matrix[-1, inside, 1] == 0).all() and (matrix[:, ~inside, 1] == k).all()
    steps = np.diff(falls(matrix[..., 1], action_levels), axis=0)
    assert ((steps == 0) | (steps == 1)).all()


@given(any_matrix(), st.data())
def test_together(drawn: tuple[str, mx.Matrix, mx.Matrix], data: st.DataObject) -> None:
    _, observations, levels = drawn
    tokens, k = observations.shape[1], int(levels[-1])
    start = data.draw(st.integers(0, tokens))
    chunks = range(start, data.draw(st.integers(start, tokens)))
    matrix = mx.together(observations, chunks, k)
    inside = np.isin(np.arange(tokens), list(chunks))
    assert (matrix[..., 0] == observations).all()
    assert (matrix[:, inside, 1] == observations[:, inside]).all() and (matrix[:, ~inside, 1] == k).all()


@given(any_matrix(), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3))
def test_a_prefix_is_the_same_in_every_row(drawn: tuple[str, mx.Matrix, mx.Matrix], prefix: list) -> None:
    _, observations, levels = drawn
    matrix = mx.together(observations, range(observations.shape[1]), int(levels[-1]))
    held = np.array(prefix)
    out = mx.with_prefix(matrix, held)
    assert (out[:, : len(held)] == held).all() and (out[:, len(held) :] == matrix).all()


@given(any_matrix(), st.data())
def test_warm_starts_low_ends_the_same_and_never_idles(
    drawn: tuple[str, mx.Matrix, mx.Matrix], data: st.DataObject
) -> None:
    _, observations, levels = drawn
    k, tokens = int(levels[-1]), observations.shape[1]
    matrix = mx.together(observations, range(tokens), k)
    start = np.array(data.draw(st.lists(st.integers(0, k), min_size=2 * tokens, max_size=2 * tokens))).reshape(-1, 2)
    out = mx.warm(matrix, start)
    assert (out[0] == np.minimum(matrix[0], start)).all() and (out[-1] == 0).all()
    assert (np.diff(out, axis=0) <= 0).all()
    assert (np.diff(out, axis=0) != 0).any((1, 2)).all()
    assert len(out) <= len(matrix)
    place = np.searchsorted(levels, out)  # between two entries counts as the upper one
    assert (np.diff(place, axis=0) >= -1).all(), "a warm column must not skip an entry either"
    assert (mx.warm(matrix, matrix[0]) == matrix).all()


def test_bad_numbers_are_a_sentence() -> None:
    levels = mx.level_list(10, 5)
    bad = [
        lambda: mx.level_list(10, 11),
        lambda: mx.level_list(10, 0),
        lambda: mx.full_sequence(0, levels),
        lambda: mx.pyramid(3, levels, -1),
        lambda: mx.pyramid(3, levels, float("nan")),
        lambda: mx.trapezoid(3, levels, float("inf")),
        lambda: mx.rolling(3, levels, 4),
        lambda: mx.rolling(3, levels, 0),
        lambda: mx.scheme("rolling", 3, levels, float("nan")),
        lambda: mx.scheme("rolling", 3, levels, 1.5),
    ]
    for call in bad:
        with pytest.raises(DFPlannerError, match="expected"):
            call()
    with pytest.raises(DFPlannerError, match="full-sequence, autoregressive, pyramid, trapezoid, rolling"):
        mx.scheme("spiral", 3, levels, 1)
