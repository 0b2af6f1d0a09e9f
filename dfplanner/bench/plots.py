"""Pictures of a benchmark: every policy's rollouts over the maze, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dfplanner.bench.report import Run, label, title
from dfplanner.bench.rollout import RolloutResult
from dfplanner.bench.tasks import task_of
from dfplanner.types import DFPlannerError
from dfplanner.viz import (
    D4RL_OFFSET,
    DPI,
    GOAL,
    GREY,
    INK,
    TIME,
    axes_at,
    checked_path,
    colour_bar,
    drawn_size,
    mark_goal,
    mark_start,
    new_figure,
    plot_maze,
    save_figure,
    segments,
    shown,
    words,
)
from dfplanner_envs.mazes import GOAL_RADIUS


@dataclass(frozen=True)
class RolloutPanel:
    """One policy in one maze: its episodes are drawn over each other.

    ``group`` names the row of panels (the environment); ``rows`` is the map; trajectories (N, H, 2+)
    observations, goals (N, 2), plans (N, T, 2+) the states of the first plan, dotted, or None.
    """

    group: str
    title: str
    subtitle: str
    rows: Sequence[str]
    trajectories: NDArray[Any]
    goals: NDArray[Any]
    plans: NDArray[Any] | None = None
    goal_radius: float = GOAL_RADIUS


def plot_rollouts(
    path: str | Path,
    panels: Sequence[RolloutPanel],
    *,
    episodes: int = 6,
    columns: int = 5,
    offset: float = D4RL_OFFSET,
) -> None:
    """A PNG of the first ``episodes`` episodes of every panel: a block of panels for every group, coloured by
    time.

    Raises DFPlannerError without panels or if the name does not end in .png.
    """
    path = checked_path(path, {".png": "a picture"})
    if not panels:
        raise DFPlannerError("there is nothing to draw: no rollouts came")
    groups: dict[str, list[RolloutPanel]] = {}
    for panel in panels:
        groups.setdefault(panel.group, []).append(panel)
    columns = min(columns, max(map(len, groups.values())))
    side, gap, margin, head, foot, caption = 2.5, 0.22, 0.35, 0.42, 0.95, 0.46
    width = max(2 * margin + columns * side + (columns - 1) * gap, 6.4)

    def panel_height(group: list[RolloutPanel]) -> float:
        w, h = drawn_size(group[0].rows)
        return side * h / w

    heights = [head + -(-len(g) // columns) * (panel_height(g) + caption) for g in groups.values()]
    fig = new_figure(width, sum(heights) + foot + 0.15)
    top = fig.get_size_inches()[1] - 0.15
    for (name, group), height in zip(groups.items(), heights, strict=True):
        words(fig, margin, top - 0.28, name, fontsize=13, fontweight="bold")
        for i, panel in enumerate(group):
            h = panel_height(group)
            row, column = divmod(i, columns)
            left = margin + column * (side + gap)
            bottom = top - head - (row + 1) * (h + caption) + 0.1
            ax = axes_at(fig, (left, bottom, side, h))
            _draw_rollouts(ax, panel, episodes, offset)
            size = min(9.5, 9.5 * 22 / len(panel.title))
            words(fig, left, bottom + h + 0.07, panel.title, fontsize=size, fontweight="bold")
            words(fig, left + side, bottom + h + 0.07, panel.subtitle, fontsize=8, color=GREY, ha="right")
        top -= height
    shown_most = min(episodes, max(len(p.trajectories) for p in panels))
    _rollout_legend(fig, margin, shown_most, any(p.plans is not None for p in panels))
    save_figure(fig, path)


def _draw_rollouts(ax: Axes, panel: RolloutPanel, episodes: int, offset: float) -> None:
    """The first episodes of a panel: plans dotted, rollouts coloured by time, starts and goals."""
    plot_maze(ax, panel.rows, offset)
    scale = ax.get_window_extent().width / DPI * 72 / drawn_size(panel.rows)[0]  # points a cell
    tracks = np.asarray(panel.trajectories)[:episodes]
    for i, track in enumerate(tracks):
        if panel.plans is not None:
            plan = shown(panel.plans[i])
            ax.plot(*plan.T, color=INK, lw=0.7, ls=(0, (1, 1.5)), marker=".", ms=2.5, alpha=0.7, zorder=6)
        xy = shown(track[:: max(1, len(track) // 250)])
        line = LineCollection(
            list(segments(xy)),
            cmap=TIME,
            norm=PowerNorm(0.6, 0, 1),
            linewidths=1.7,
            capstyle="round",
            zorder=5,
        )
        line.set_array(np.linspace(0, 1, len(xy) - 1))
        ax.add_collection(line)
    for goal in np.unique(np.asarray(panel.goals)[:episodes], axis=0):
        mark_goal(ax, goal, panel.goal_radius, max(7.0, 0.5 * scale))
    for track in tracks:
        mark_start(ax, track[0], max(4.0, 0.17 * scale))


def _rollout_legend(fig: Figure, margin: float, episodes: int, plans: bool) -> None:
    """Time's colours and what the marks are, at the foot of the figure."""
    colour_bar(fig, (margin, 0.6, 1.9, 0.09), TIME, ("episode begins", "ends"))
    ax = axes_at(fig, (margin + 2.3, 0.42, fig.get_size_inches()[0] - 2 * margin - 2.3, 0.4))
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
    note = f"The first {episodes} episodes of each policy; scores and returns are means over all its episodes."
    words(fig, margin, 0.14, note, fontsize=8, color=GREY)


def panels_of(results: Sequence[tuple[Run, RolloutResult]]) -> list[RolloutPanel]:
    """A panel for every benchmarked run: its score beside its name."""
    panels = []
    for run, result in results:
        task = task_of(result.env_id)
        panels.append(
            RolloutPanel(
                group=title(run),
                title=label(run),
                subtitle=task.headline(run),
                rows=task.rows,
                trajectories=task.drawn(result.trajectories),
                goals=task.drawn(result.goal),
                plans=None if result.first_plan is None else task.drawn(result.first_plan),
                goal_radius=task.goal_radius,
            )
        )
    return panels
