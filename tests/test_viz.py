"""Pictures put things where they are, and files are what their names say."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dfplanner.matrices import level_list, pyramid
from dfplanner.types import DFPlannerError, Plan
from dfplanner.viz import FLOOR, GOAL, WALL, animate_plan, mark_goal, new_figure, plot_maze, plot_plan

ROWS = ("#####", "#OO##", "##OO#", "#####")
K, T, CHUNK = 50, 8, 5


def make_plan(batch: int = 2) -> Plan:
    """A straight walk from (1, 1) to (2, 3), with a trace whose near tokens settle first."""
    walk = np.linspace((1, 1, 0, 0), (2, 3, 0, 0), T, dtype=np.float32)
    states = np.repeat(walk[None], batch, axis=0)
    noise = np.random.default_rng(0).normal(0, 1, states.shape).astype(np.float32)
    matrix = pyramid(T, level_list(K, 4), 1.0)[1:]
    trace = []
    for row in matrix:
        levels = np.stack((row, np.full(T, K)), axis=1)
        trace.append((states + noise * (row / K)[None, :, None].astype(np.float32), levels))
    return Plan(
        states=states,
        actions=np.zeros((batch, (T - 1) * CHUNK, 2), np.float32),
        levels=np.repeat(trace[-1][1][None], batch, axis=0),
        score=np.arange(batch, dtype=np.float32),
        chunk=CHUNK,
        dt_s=0.01,
        tokens=states,
        trace=tuple(trace),
    )


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_walls_are_drawn_where_the_ball_meets_them(offset: float) -> None:
    """Every cell's middle, and points near its border, have the colour of what the map says."""
    fig = new_figure(5, 4)
    ax = fig.add_axes((0, 0, 1, 1))
    plot_maze(ax, ROWS, offset)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]
    for r in range(1, 3):
        for c in range(1, 4):
            for dr, dc in ((0, 0), (0.45, 0), (-0.45, 0), (0, 0.45), (0, -0.45)):
                x, y = r - offset + dr, c - offset + dc
                column, up = ax.transData.transform((y, x))
                seen = pixels[len(pixels) - 1 - int(up), int(column)]
                expected = rgb(WALL if ROWS[r][c] == "#" else FLOOR)
                assert np.abs(seen - expected).max() <= 2, (r, c, dr, dc)


def test_a_goal_is_drawn_in_its_own_cell() -> None:
    """Map and points agree about which way x and y go: the star's middle is where cell (1, 2)'s is."""
    fig = new_figure(5, 4)
    ax = fig.add_axes((0, 0, 1, 1))
    plot_maze(ax, ROWS, 0.2)
    mark_goal(ax, (0.8, 1.8), 0.3, 12)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]
    rows, columns = np.nonzero(np.abs(pixels - rgb(GOAL)).max(axis=-1) < 5)
    column, up = ax.transData.transform((1.8, 0.8))
    assert abs(columns.mean() - column) < 4 and abs(len(pixels) - 1 - rows.mean() - up) < 6


@pytest.mark.parametrize("rows", [(), ("###", "#O")])
def test_a_map_that_is_none_is_refused(rows: tuple[str, ...]) -> None:
    with pytest.raises(DFPlannerError, match="rows of text of one length"):
        plot_maze(new_figure(2, 2).add_axes((0, 0, 1, 1)), rows)


def test_a_picture_of_a_plan_shows_its_goal(tmp_path: Path) -> None:
    for goal, shown in ((None, False), ((2.0, 3.0), True)):
        path = tmp_path / "new" / "plan.png"
        plot_plan(path, make_plan(), ROWS, goal)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert (np.abs(pixels - rgb(GOAL)).max(axis=-1) < 5).any() == shown
    assert [p.name for p in path.parent.iterdir()] == ["plan.png"]


def test_an_animation_has_a_frame_a_step_and_the_film_the_same(tmp_path: Path) -> None:
    plan = make_plan()
    animate_plan(tmp_path / "plan.gif", plan, ROWS, (2, 3))
    gif = Image.open(tmp_path / "plan.gif")
    assert gif.n_frames == len(plan.trace) and gif.info["loop"] == 0  # type: ignore[attr-defined]
    frames = []
    for i in range(len(plan.trace)):
        gif.seek(i)
        frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert all((a != b).any() for a, b in itertools.pairwise(frames))

    animate_plan(tmp_path / "PLAN.MP4", plan, ROWS, (2, 3))
    film = cv2.VideoCapture(str(tmp_path / "PLAN.MP4"))
    ok, first = film.read()
    assert ok and film.get(cv2.CAP_PROP_FRAME_COUNT) >= len(plan.trace)
    height, width = first.shape[:2]
    assert np.abs(first[..., ::-1].astype(int) - frames[0][:height, :width]).mean() < 4


def test_the_strip_shows_the_levels_of_the_step(tmp_path: Path) -> None:
    """Near tokens are blue (certain) while far ones are amber (noise), and at the end all observations are blue."""
    plan = make_plan()
    animate_plan(tmp_path / "plan.gif", plan, ROWS)
    gif = Image.open(tmp_path / "plan.gif")
    height, width = gif.size[1], gif.size[0]
    row = int(height - 0.9 * 120)  # the observations' half of the strip, 0.81 to 1.0 inches from below
    left, right = int(1.15 * 120), int(width - 0.3 * 120)
    for step, certain in ((0, 0), (7, 5), (len(plan.trace) - 1, T)):
        gif.seek(step)
        pixels = np.asarray(gif.convert("RGB")).astype(int)
        middles = left + (np.arange(T) + 0.5) * (right - left) / T
        red, _, blue = pixels[row, middles.astype(int)].T
        expected = plan.trace[step][1][:, 0] == 0
        assert expected.sum() == certain
        np.testing.assert_array_equal((blue > red + 60) & (red < 40), expected)


def test_png_of_an_animation_is_the_plan(tmp_path: Path) -> None:
    plan = make_plan()
    animate_plan(tmp_path / "a.png", plan, ROWS, (2, 3))
    plot_plan(tmp_path / "b.png", plan, ROWS, (2, 3))
    a, b = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    np.testing.assert_array_equal(a, b)


def test_bad_requests_are_sentences_and_leave_no_file(tmp_path: Path) -> None:
    plan = make_plan()
    with pytest.raises(DFPlannerError, match=r"\.png .*\.gif .*or \.mp4"):
        animate_plan(tmp_path / "plan.bmp", plan, ROWS)
    with pytest.raises(DFPlannerError, match=r"ends in \.png"):
        plot_plan(tmp_path / "plan", plan, ROWS)
    with pytest.raises(DFPlannerError, match="no trace"):
        animate_plan(tmp_path / "plan.gif", replace(plan, trace=()), ROWS)
    with pytest.raises(DFPlannerError, match="plan 5 was asked for, but the batch holds 2"):
        plot_plan(tmp_path / "plan.png", plan, ROWS, index=5)
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_not_touched(tmp_path: Path) -> None:
    before = sys.modules.pop("matplotlib.pyplot", None)
    try:
        plot_plan(tmp_path / "plan.png", make_plan(), ROWS)
        assert "matplotlib.pyplot" not in sys.modules
    finally:
        if before is not None:
            sys.modules["matplotlib.pyplot"] = before
