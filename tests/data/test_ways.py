"""Shortest ways through what episodes visited, against a search of our own; goals that windows truly lead to."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from dfplanner.data.episodes import Episodes
from dfplanner.data.ways import Ways
from dfplanner.data.windows import Windows
from dfplanner.types import DFPlannerError, TokenSpec

U = [(0.5, y + 0.5) for y in range(6)] + [(1.5, 5.5)] + [(2.5, y + 0.5) for y in range(5, -1, -1)]
"""Cells of a corridor in the shape of a U: its two ends are two metres apart, and 12 cells away from one another."""


def walks(seed: int, n: int = 60, steps: int = 9, speed: float = 0.5) -> Episodes:
    """Short walks to and fro in the U: none comes from one end to the other."""
    rng, corners = np.random.default_rng(seed), np.array(U)
    at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    walked = []
    for i in range(n):
        s = rng.uniform(0, at[-1]) + (1 if i % 2 else -1) * speed * np.arange(steps)
        s = np.clip(s, 0, at[-1])
        walked.append(np.stack([np.interp(s, at, corners[:, k]) for k in range(2)], 1))
    seen = np.concatenate(walked).astype(np.float32)
    none = np.full((len(seen), 2), np.nan, np.float32)
    return Episodes(
        observations=seen,
        actions=np.zeros((len(seen), 2), np.float32),
        goals=none,
        rewards=np.zeros(len(seen), np.float32),
        starts=np.arange(n) * steps,
        meta={"dt_s": 0.1, "pos": [0, 1]},
    )


def along(points: np.ndarray) -> np.ndarray:
    """Metres from the U's first end."""
    x, y = points[..., 0], points[..., 1]
    return np.where(x < 0.75, y - 0.5, np.where(x > 2.25, 12.5 - y, 5 + x - 0.5))


def test_distances_are_dijkstras() -> None:
    e = walks(0)
    ways = Ways(e.observations, e.starts, 1.0)
    n = len(ways.distance)
    cells = np.floor(e.observations).astype(int)
    place = {int(k): cells[i] for i, k in enumerate(ways.node)}
    edges: dict[int, dict[int, float]] = {k: {} for k in range(n)}
    for i in range(len(cells) - 1):
        a, b = int(ways.node[i]), int(ways.node[i + 1])
        if i + 1 not in e.starts and a != b:
            edges[a][b] = float(np.linalg.norm(place[a] - place[b]))
    for source in range(n):
        best, queue = {source: 0.0}, [(0.0, source)]
        while queue:
            d, a = heapq.heappop(queue)
            for b, w in edges[a].items():
                if d + w < best.get(b, np.inf):
                    best[b] = d + w
                    heapq.heappush(queue, (d + w, b))
        np.testing.assert_allclose(ways.distance[source], [best.get(k, np.inf) for k in range(n)], rtol=1e-6)


def test_a_way_goes_round_the_wall_though_no_episode_did() -> None:
    e = walks(0)
    ways = Ways(e.observations, e.starts, 1.0)
    ends = [ways.node[np.linalg.norm(e.observations - end, axis=1).argmin()] for end in (U[0], U[-1])]
    assert ways.distance[ends[0], ends[1]] == pytest.approx(12, abs=1.5)
    assert max(np.ptp(along(e.observations[i : i + 9])) for i in e.starts) < 5


def test_windows_lead_to_their_goals() -> None:
    e = walks(1, n=200)
    ways = Ways(e.observations, e.starts, 1.0)
    rows = e.starts[:, None] + np.arange(0, 9, 2)
    goal, led = ways.goal_rows(rows, np.random.default_rng(0))
    s, g = along(e.observations[rows]), along(e.observations[goal])
    any_ = led > 0
    moves = np.sign(s[:, -1] - s[:, 0])
    assert any_[np.abs(s[:, -1] - s[:, 0]) > 3].mean() > 0.8
    ahead = (g - s[:, 0]) * moves
    went = any_ & (np.abs(s[:, -1] - s[:, 0]) > 3)
    assert (ahead[went] > 0).all() and (ahead[went] > 6).any()
    assert (np.linalg.norm(e.observations[goal] - e.observations[rows[:, 0]], axis=1)[went & (ahead > 10)] < 4).any()


def test_a_window_that_turns_leads_only_so_far() -> None:
    e = walks(1, n=200)
    ways = Ways(e.observations, e.starts, 1.0)
    s = along(e.observations)
    there = [int(np.abs(s - at).argmin()) for at in (1.0, 3.0, 5.0, 3.0, 1.0)]
    rows = np.tile(there, (500, 1))
    goal, led = ways.goal_rows(rows, np.random.default_rng(0))
    beyond = (led > 0) & (s[goal] > 8.0)
    assert beyond.sum() > 100 and (led[beyond] == 3).all(), "it leads there until it turns"
    assert (led[(led > 0) & (s[goal] < 4.0)] == 5).all(), "a goal that was passed was reached"


def test_training_windows_take_such_goals() -> None:
    e = walks(2, n=200)
    spec = TokenSpec(2, 2, 2, 4, 4, 0.1, (0, 1))
    plain, led = (Windows(e, spec, stay=False, shortest=share, place=1.0) for share in (0.0, 1.0))
    (states, _, inside, *_), (same, _, goals, *_) = (w.draw(300, np.random.default_rng(0)) for w in (plain, led))
    assert np.array_equal(states, same)
    far = np.abs(along(goals.numpy()) - along(states[:, 0].numpy()))
    assert np.abs(along(inside.numpy()) - along(states[:, 0].numpy())).max() < 4 and (far > 6).mean() > 0.2


def test_too_many_places_and_no_size_are_refused() -> None:
    e = walks(0)
    with pytest.raises(DFPlannerError, match="above 0"):
        Ways(e.observations, e.starts, 0.0)
    many = np.random.default_rng(0).normal(size=(7000, 2)).astype(np.float32)
    with pytest.raises(DFPlannerError, match="make them larger"):
        Ways(many, np.array([0]), 1e-3)
