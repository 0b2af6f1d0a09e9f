"""Pictures: plans and rollouts over a maze, and a plan being denoised, near future first.

Nothing here knows an environment: a maze is its map, rows of text in which ``#`` is a wall, drawn as it is
written (row index x downwards, column index y to the right). Cell (r, c) has its middle at (r, c) -
``offset`` in observations; 0.2 is D4RL's. Figures are made without pyplot, so that nothing global changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
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
RIM = 0.25
"""Cells of the outer wall that are drawn: there is nothing behind it."""


def shown(xy: ArrayLike) -> NDArray[np.float64]:
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


def drawn_size(rows: Sequence[str]) -> tuple[float, float]:
    """Width and height of what ``plot_maze`` draws, in cells."""
    return len(rows[0]) - 2 + 2 * RIM, len(rows) - 2 + 2 * RIM


def mark_goal(ax: Axes, goal: ArrayLike, radius: float, size: float, zorder: float = 8) -> None:
    """A star with the ring within which the goal counts as reached."""
    x, y = shown(goal)
    ax.add_patch(Circle((x, y), radius, facecolor=GOAL, alpha=0.12, linewidth=0, zorder=0.5))
    ring = {"fill": False, "edgecolor": GOAL, "linewidth": 0.8, "linestyle": (0, (3, 2))}
    ax.add_patch(Circle((x, y), radius, **ring, zorder=0.6))  # below the walls: nobody is there
    ax.plot([x], [y], marker="*", ms=size, mfc=GOAL, mec="white", mew=size / 16, zorder=zorder)


def mark_start(ax: Axes, start: ArrayLike, size: float) -> None:
    x, y = shown(start)
    ax.plot([x], [y], marker="o", ms=size, mfc="white", mec=INK, mew=size / 5, zorder=7)


def segments(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T-1, 2, 2) the pieces of the line through points (T, 2)."""
    return np.stack((xy[:-1], xy[1:]), axis=1)


def colour_bar(fig: Figure, box: Sequence[float], cmap: Any, ends: tuple[str, str], title: str = "") -> None:
    """A slim colour bar in figure inches (left, bottom, width, height), its ends named in words."""
    ax = axes_at(fig, box)
    ax.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=cmap)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    for x, word, side in ((0.0, ends[0], "left"), (1.0, ends[1], "right"), (0.5, title, "center")):
        ax.text(x, -0.5, word, transform=ax.transAxes, ha=side, va="top", fontsize=8, color=GREY)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, drawn by Agg."""
    fig = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(fig)
    return fig


def axes_at(fig: Figure, box: Sequence[float]) -> Axes:
    """Axes at (left, bottom, width, height) in inches."""
    width, height = fig.get_size_inches()
    left, bottom, w, h = box
    return fig.add_axes((left / width, bottom / height, w / width, h / height))


def words(fig: Figure, x: float, y: float, text: str, **style: Any) -> Any:
    """Text at (x, y) inches from the lower left."""
    width, height = fig.get_size_inches()
    return fig.text(x / width, y / height, text, **{"fontsize": 9, "color": INK, "va": "baseline", **style})


def checked_path(path: str | Path, known: dict[str, str]) -> Path:
    """The path, if its suffix is known; raises DFPlannerError that names those that are."""
    path = Path(path)
    if path.suffix.lower() not in known:
        names = [f"{suffix} ({what})" for suffix, what in known.items()]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
        raise DFPlannerError(f"{path.name!r} cannot be drawn: a picture's name ends in {listed}")
    return path


def save_figure(fig: Figure, path: Path) -> None:
    atomic_write(path, lambda part: fig.savefig(part, dpi=DPI, facecolor="white"))


def _plan_parts(plan: Plan, index: int | None) -> tuple[int, NDArray[np.float64]]:
    """The plan of the batch to draw (the best-scoring, unless ``index`` says), and its path (T, 2) as
    drawn.
    """
    batch = len(plan.states)
    chosen = int(np.argmax(plan.score)) if index is None else index
    if not -batch <= chosen < batch:
        raise DFPlannerError(f"plan {index} was asked for, but the batch holds {batch}; count from 0")
    return chosen % batch, shown(plan.states[chosen])


def plot_plan(
    path: str | Path,
    plan: Plan,
    rows: Sequence[str],
    goal: ArrayLike | None = None,
    *,
    index: int | None = None,
    title: str = "",
    offset: float = D4RL_OFFSET,
    goal_radius: float = 0.5,
) -> None:
    """A PNG of a plan over the maze ``rows``: tokens coloured by time, hollow where they are still noisy.

    ``index`` chooses from the batch (the best score by default; the others are drawn thin). ``goal`` (2,) is
    a star. Raises DFPlannerError if the name does not end in .png.
    """
    path = checked_path(path, {".png": "a picture"})
    chosen, xy = _plan_parts(plan, index)
    fig, ax, left = _maze_figure(rows, offset, foot=0.68)
    _head(fig, left, title or "Plan")
    for other in range(len(plan.states)):
        if other != chosen:
            ax.plot(*shown(plan.states[other]).T, color=GREY, lw=0.8, alpha=0.5, zorder=3)
    noisy = plan.levels[chosen, :, 0] > 0
    seconds = np.arange(len(xy)) * plan.chunk * plan.dt_s
    norm = Normalize(0, max(seconds[-1], 1e-9))
    line = LineCollection(list(segments(xy)), cmap=TIME, norm=norm, linewidths=2, capstyle="round", zorder=4)
    line.set_array(seconds[:-1])
    ax.add_collection(line)
    colours = TIME(norm(seconds))
    faces = np.where(noisy[:, None], (1, 1, 1, 1), colours)
    ax.scatter(*xy.T, s=_dot(ax, rows) ** 2, c=faces, edgecolors=list(colours), linewidths=1.2, zorder=5)
    _mark_ends(ax, rows, plan.states[chosen, 0], goal, goal_radius)
    width = fig.get_size_inches()[0] - 2 * left
    colour_bar(fig, (left, 0.42, width, 0.1), TIME, ("now", f"in {seconds[-1]:.2g} s"), "time along the plan")
    save_figure(fig, path)


def _maze_figure(rows: Sequence[str], offset: float, foot: float) -> tuple[Figure, Axes, float]:
    """A figure with the maze, room for a headline above and ``foot`` inches below; the margin's width."""
    margin, head = 0.3, 0.55
    w, h = drawn_size(rows)
    width = 5.2 if w >= h else 5.2 * max(w / h, 0.6)
    fig = new_figure(width + 2 * margin, width * h / w + head + foot)
    ax = axes_at(fig, (margin, foot, width, width * h / w))
    plot_maze(ax, rows, offset)
    return fig, ax, margin


def _head(fig: Figure, left: float, title: str, right: str = "") -> Any:
    """The headline, and a word at its right end, which is returned."""
    width, height = fig.get_size_inches()
    words(fig, left, height - 0.36, title, fontsize=12.5, fontweight="bold")
    return words(fig, width - left, height - 0.36, right, color=GREY, ha="right")


def _dot(ax: Axes, rows: Sequence[str]) -> float:
    """Points across of a token's dot: a sixth of a cell, within reason."""
    return np.clip(ax.get_window_extent().width / DPI * 72 / drawn_size(rows)[0] / 6, 4.5, 9.0)


def _mark_ends(ax: Axes, rows: Sequence[str], start: ArrayLike, goal: ArrayLike | None, goal_radius: float) -> None:
    """The start's ring and the goal's star."""
    mark_start(ax, start, 1.3 * _dot(ax, rows))
    if goal is not None:
        mark_goal(ax, goal, goal_radius, 3.8 * _dot(ax, rows), zorder=3.5)  # the plan ends on it


class _Denoising:
    """The figure of an animation: one object whose ``draw`` paints a step of a plan's trace."""

    def __init__(
        self,
        plan: Plan,
        rows: Sequence[str],
        goal: ArrayLike | None,
        chosen: int,
        title: str,
        offset: float,
        radius: float,
    ) -> None:
        self.plan, self.chosen = plan, chosen
        levels = [levels for _, levels in plan.trace]
        self.norm = Normalize(0, max(1, max(int(level.max()) for level in levels)))
        self.fig, ax, left = _maze_figure(rows, offset, foot=1.32)
        self.count = _head(self.fig, left, title or "A plan being denoised", " ")
        _mark_ends(ax, rows, plan.states[chosen, 0], goal, radius)
        self.line = LineCollection([], linewidths=2, capstyle="round", zorder=4)
        ax.add_collection(self.line)
        self.dots = ax.scatter([], [], s=_dot(ax, rows) ** 2, edgecolors="white", linewidths=0.6, zorder=5)
        self._strip(left, levels[0])

    def _strip(self, left: float, levels: NDArray[Any]) -> None:
        """Below the maze: the row of the scheduling matrix, a cell for every part of every token, and its
        colours.
        """
        indent = 0.85
        width = self.fig.get_size_inches()[0] - 2 * left - indent
        ax = axes_at(self.fig, (left + indent, 0.62, width, 0.38))
        self.cells = ax.imshow(levels.T, aspect="auto", cmap=NOISE, norm=self.norm, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.vlines(np.arange(1, len(levels)) - 0.5, -0.5, levels.shape[1] - 0.5, color="white", lw=1)
        ax.hlines(np.arange(1, levels.shape[1]) - 0.5, -0.5, len(levels) - 0.5, color="white", lw=1)
        for spine in ax.spines.values():
            spine.set_visible(False)
        for part, name in enumerate(("observation", "actions")):
            ax.text(-0.7, part, name, ha="right", va="center", fontsize=8, color=INK)
        words(self.fig, left + indent, 1.07, "now", fontsize=8, color=GREY)
        seconds = (len(levels) - 1) * self.plan.chunk * self.plan.dt_s
        for share, word, side in ((0.5, "noise level of every token", "center"), (1, f"in {seconds:.2g} s", "right")):
            words(self.fig, left + indent + share * width, 1.07, word, fontsize=8, color=GREY, ha=side)
        colour_bar(self.fig, (left + indent, 0.4, width, 0.08), NOISE, ("certain", "noise"))

    def draw(self, step: int) -> NDArray[np.uint8]:
        """The frame (H, W, 3) after sampling step ``step``."""
        states, levels = self.plan.trace[step]
        xy, level = shown(states[self.chosen]), levels[:, 0]
        sure = 1 - self.norm(level.astype(float))
        colours = NOISE(self.norm(level))
        self.dots.set_offsets(xy)
        self.dots.set_facecolor(list(colours))
        edges = colours[1:].copy()
        edges[:, 3] = 0.12 + 0.88 * sure[1:] ** 2  # lines between noise would hide the maze
        self.line.set_segments(list(segments(xy)))
        self.line.set_color(list(edges))
        self.cells.set_data(levels.T)
        self.count.set_text(f"sampling step {step + 1} of {len(self.plan.trace)}")
        canvas = self.fig.canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # pyright: ignore[reportAttributeAccessIssue]


def animate_plan(
    path: str | Path,
    plan: Plan,
    rows: Sequence[str],
    goal: ArrayLike | None = None,
    *,
    index: int | None = None,
    title: str = "",
    offset: float = D4RL_OFFSET,
    goal_radius: float = 0.5,
    seconds: float = 4.0,
) -> None:
    """A plan being denoised over the maze ``rows``, from its trace: .gif, .mp4, or its end alone as .png.

    Tokens are coloured by their noise level; below is that step's row of the scheduling matrix. It lasts
    about ``seconds``, then rests on the plan. Other arguments are ``plot_plan``'s. Raises DFPlannerError for
    another suffix or a plan without a trace.
    """
    path = checked_path(path, {".png": "a picture", ".gif": "an animation", ".mp4": "a film"})
    chosen, _ = _plan_parts(plan, index)
    if path.suffix.lower() == ".png":
        plot_plan(path, plan, rows, goal, index=index, title=title, offset=offset, goal_radius=goal_radius)
        return
    if not plan.trace:
        raise DFPlannerError("the plan has no trace to animate; ask for one when planning (trace=True)")
    picture = _Denoising(plan, rows, goal, chosen, title, offset, goal_radius)
    frames = [picture.draw(step) for step in range(len(plan.trace))]
    write_film(path, frames, float(np.clip(seconds / len(frames), 0.04, 0.25)))


def write_film(path: Path | str, frames: Sequence[NDArray[np.uint8]], frame_s: float) -> None:
    """Pictures (H, W, 3), each shown ``frame_s`` seconds, as .gif or .mp4; raises DFPlannerError for another suffix."""
    path = checked_path(path, {".gif": "an animation", ".mp4": "a film"})
    write = _gif if path.suffix.lower() == ".gif" else _mp4
    atomic_write(path, lambda part: write(part, frames, frame_s))


REST_S = 1.5
"""Seconds that an animation rests on its last frame."""


def _gif(path: str, frames: Sequence[NDArray[np.uint8]], frame_s: float) -> None:
    """An endless GIF; one palette for all frames, so that colours do not flicker."""
    from PIL import Image

    sample = np.concatenate((frames[0], frames[len(frames) // 2], frames[-1]))
    palette = Image.fromarray(sample).quantize(colors=255, dither=Image.Dither.NONE)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[colours.min(axis=1) > 247] = 255  # Pillow's search is coarse: the page must not turn grey
    palette.putpalette(colours.ravel().tolist())
    images = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    lasting = [round(1000 * frame_s)] * (len(images) - 1) + [round(1000 * REST_S)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=lasting, loop=0, optimize=True)


def _mp4(path: str, frames: Sequence[NDArray[np.uint8]], frame_s: float) -> None:
    """An MPEG-4 film by OpenCV; raises DFPlannerError where this OpenCV cannot write one."""
    import cv2

    height, width = (side // 2 * 2 for side in frames[0].shape[:2])  # the codec wants even sides
    fps = 1 / frame_s
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise DFPlannerError("this OpenCV cannot write MP4 films; write a .gif, or install opencv-python-headless")
    for frame in [*frames, *[frames[-1]] * round(REST_S * fps)]:
        writer.write(np.ascontiguousarray(frame[:height, :width, ::-1]))
    writer.release()
