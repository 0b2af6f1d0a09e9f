"""Pictures: plans and rollouts over a maze, and a plan being denoised, near future first.

Nothing here knows an environment: a maze is its map, rows of text in which ``#`` is a wall, drawn as it is written (row
index x downwards, column index y to the right). Cell (r, c) has its middle at (r, c) - ``offset`` in observations; 0.2
is D4RL's. Figures are made without pyplot, so that nothing global changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import ArrayLike, NDArray

from dfplanner.checkpoint import atomic_write
from dfplanner.types import DFPlannerError, Plan

INK, GREY, WALL, FLOOR, GOAL = "#22303f", "#7a8594", "#4b566a", "#f7f5f1", "#c4372c"
TIME = LinearSegmentedColormap.from_list("time", ["#1b3a6b", "#2779a7", "#2fa59a", "#8dbb5c", "#e2b23c"])
NOISE = LinearSegmentedColormap.from_list("noise", ["#163f78", "#3f7fb5", "#9fb4bf", "#e3c79a", "#e39a3b"])
DPI = 120
D4RL_OFFSET = 0.2
RIM = 0.45
"""Cells of the outer wall that are drawn: there is nothing behind it."""


def _shown(xy: ArrayLike) -> NDArray[np.float64]:
    """Points (..., 2+) of (x, y) as they are drawn: y to the right, x downwards."""
    return np.asarray(xy, np.float64)[..., [1, 0]]


def plot_maze(ax: Axes, rows: Sequence[str], offset: float = D4RL_OFFSET) -> None:
    """Walls and floor of the map ``rows`` on ``ax``, without ticks, cells square."""
    if not rows or len({len(row) for row in rows}) != 1:
        raise DFPlannerError("a maze is drawn from rows of text of one length, '#' for a wall; others came")
    ax.set_facecolor(FLOOR)
    boxes = [
        Rectangle((c - offset - 0.5, r - offset - 0.5), 1, 1)
        for r, row in enumerate(rows)
        for c, cell in enumerate(row)
        if cell == "#"
    ]
    ax.add_collection(PatchCollection(boxes, facecolor=WALL, edgecolor=WALL, linewidth=0.6, zorder=1))
    ax.set_xlim(0.5 - RIM - offset, len(rows[0]) - 1.5 + RIM - offset)
    ax.set_ylim(len(rows) - 1.5 + RIM - offset, 0.5 - RIM - offset)
    ax.set_aspect("equal")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _size(rows: Sequence[str]) -> tuple[float, float]:
    """Width and height of what ``plot_maze`` draws, in cells."""
    return len(rows[0]) - 2 + 2 * RIM, len(rows) - 2 + 2 * RIM


def _mark_goal(ax: Axes, goal: ArrayLike, radius: float, size: float) -> None:
    """A star with the ring within which the goal counts as reached."""
    x, y = _shown(goal)
    ax.add_patch(Circle((x, y), radius, facecolor=GOAL, alpha=0.10, linewidth=0, zorder=2))
    ax.add_patch(Circle((x, y), radius, fill=False, edgecolor=GOAL, linewidth=0.8, linestyle=(0, (3, 2)), zorder=2))
    ax.plot([x], [y], marker="*", ms=size, mfc=GOAL, mec="white", mew=size / 16, zorder=8)


def _mark_start(ax: Axes, start: ArrayLike, size: float) -> None:
    x, y = _shown(start)
    ax.plot([x], [y], marker="o", ms=size, mfc="white", mec=INK, mew=size / 5, zorder=7)


def _segments(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T-1, 2, 2) the pieces of the line through points (T, 2)."""
    return np.stack((xy[:-1], xy[1:]), axis=1)


def _bar(fig: Figure, box: Sequence[float], cmap: Any, ends: tuple[str, str], title: str = "") -> None:
    """A slim colour bar in figure inches (left, bottom, width, height), its ends named in words."""
    ax = _axes(fig, box)
    ax.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=cmap)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    for x, word, side in ((0.0, ends[0], "left"), (1.0, ends[1], "right"), (0.5, title, "center")):
        ax.text(x, -0.5, word, transform=ax.transAxes, ha=side, va="top", fontsize=8, color=GREY)


def _figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, drawn by Agg."""
    fig = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(fig)
    return fig


def _axes(fig: Figure, box: Sequence[float]) -> Axes:
    """Axes at (left, bottom, width, height) in inches."""
    width, height = fig.get_size_inches()
    left, bottom, w, h = box
    return fig.add_axes((left / width, bottom / height, w / width, h / height))


def _words(fig: Figure, x: float, y: float, text: str, **style: Any) -> Any:
    """Text at (x, y) inches from the lower left."""
    width, height = fig.get_size_inches()
    return fig.text(x / width, y / height, text, **{"fontsize": 9, "color": INK, "va": "baseline", **style})


def _checked(path: str | Path, known: dict[str, str]) -> Path:
    """The path, if its suffix is known; raises DFPlannerError that names those that are."""
    path = Path(path)
    if path.suffix.lower() not in known:
        names = [f"{suffix} ({what})" for suffix, what in known.items()]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
        raise DFPlannerError(f"{path.name!r} cannot be drawn: a picture's name ends in {listed}")
    return path


def _save(fig: Figure, path: Path) -> None:
    atomic_write(path, lambda part: fig.savefig(part, dpi=DPI, facecolor="white"))


# Rollouts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RolloutPanel:
    """One policy in one maze: its episodes are drawn over each other.

    ``group`` names the row of panels (the environment); ``rows`` is the map; trajectories (N, H, 2+) observations, goals
    (N, 2), plans (N, T, 2+) the states of the first plan, dotted, or None.
    """

    group: str
    title: str
    subtitle: str
    rows: Sequence[str]
    trajectories: NDArray[Any]
    goals: NDArray[Any]
    plans: NDArray[Any] | None = None


def plot_rollouts(
    path: str | Path,
    panels: Sequence[RolloutPanel],
    *,
    episodes: int = 6,
    columns: int = 5,
    offset: float = D4RL_OFFSET,
    goal_radius: float = 0.5,
) -> None:
    """A PNG of the first ``episodes`` episodes of every panel: a block of panels for every group, coloured by time.

    Raises DFPlannerError without panels or if the name does not end in .png.
    """
    path = _checked(path, {".png": "a picture"})
    if not panels:
        raise DFPlannerError("there is nothing to draw: no rollouts came")
    groups: dict[str, list[RolloutPanel]] = {}
    for panel in panels:
        groups.setdefault(panel.group, []).append(panel)
    columns = min(columns, max(map(len, groups.values())))
    side, gap, margin, head, foot, caption = 2.5, 0.22, 0.35, 0.42, 0.8, 0.46
    width = max(2 * margin + columns * side + (columns - 1) * gap, 6.4)

    def panel_height(group: list[RolloutPanel]) -> float:
        w, h = _size(group[0].rows)
        return side * h / w

    heights = [head + -(-len(g) // columns) * (panel_height(g) + caption) for g in groups.values()]
    fig = _figure(width, sum(heights) + foot + 0.15)
    top = fig.get_size_inches()[1] - 0.15
    for (name, group), height in zip(groups.items(), heights, strict=True):
        _words(fig, margin, top - 0.28, name, fontsize=13, fontweight="bold")
        for i, panel in enumerate(group):
            h = panel_height(group)
            row, column = divmod(i, columns)
            left = margin + column * (side + gap)
            bottom = top - head - (row + 1) * (h + caption) + 0.1
            ax = _axes(fig, (left, bottom, side, h))
            _draw_rollouts(ax, panel, episodes, offset, goal_radius)
            title = _words(fig, left, bottom + h + 0.07, panel.title, fontsize=9.5, fontweight="bold")
            del title
            _words(fig, left + side, bottom + h + 0.07, panel.subtitle, fontsize=8, color=GREY, ha="right")
        top -= height
    _rollout_legend(fig, margin, any(p.plans is not None for p in panels))
    _save(fig, path)


def _draw_rollouts(ax: Axes, panel: RolloutPanel, episodes: int, offset: float, radius: float) -> None:
    """The first episodes of a panel: plans dotted, rollouts coloured by time, starts and goals."""
    plot_maze(ax, panel.rows, offset)
    scale = ax.get_window_extent().width / DPI * 72 / _size(panel.rows)[0]  # points a cell
    tracks = np.asarray(panel.trajectories)[:episodes]
    for i, track in enumerate(tracks):
        if panel.plans is not None:
            plan = _shown(panel.plans[i])
            ax.plot(*plan.T, color=INK, lw=0.7, ls=(0, (1, 1.5)), marker=".", ms=2, alpha=0.55, zorder=4)
        xy = _shown(track[:: max(1, len(track) // 250)])
        line = LineCollection(
            list(_segments(xy)),
            cmap=TIME,
            norm=PowerNorm(0.6, 0, 1),
            linewidths=1.7,
            capstyle="round",
            zorder=5,
        )
        line.set_array(np.linspace(0, 1, len(xy) - 1))
        ax.add_collection(line)
    for goal in np.unique(np.asarray(panel.goals)[:episodes], axis=0):
        _mark_goal(ax, goal, radius, max(7.0, 0.5 * scale))
    for track in tracks:
        _mark_start(ax, track[0], max(4.0, 0.17 * scale))


def _rollout_legend(fig: Figure, margin: float, plans: bool) -> None:
    """Time's colours and what the marks are, at the foot of the figure."""
    _bar(fig, (margin, 0.46, 1.9, 0.09), TIME, ("episode begins", "ends"))
    ax = _axes(fig, (margin + 2.3, 0.3, fig.get_size_inches()[0] - 2 * margin - 2.3, 0.4))
    ax.set_axis_off()
    ax.set(xlim=(0, ax.get_window_extent().width / DPI), ylim=(-0.2, 0.2))
    ax.plot([0.1], [0], marker="o", ms=6, mfc="white", mec=INK, mew=1.2)
    ax.plot([0.85], [0], marker="*", ms=11, mfc=GOAL, mec="white")
    marks = [(0.22, "start"), (1.0, "goal, and its reach")]
    if plans:
        ax.plot([2.6, 2.95], [0, 0], color=INK, lw=0.8, ls=(0, (1, 1.5)), marker=".", ms=3)
        marks.append((3.05, "first plan"))
    for x, word in marks:
        ax.text(x, -0.01, word, va="center", fontsize=8.5, color=GREY)
