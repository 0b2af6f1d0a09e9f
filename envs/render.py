"""Pictures of a maze from above, painted by OpenCV: no GL, no display, no matplotlib.

Rows of the map (x) run down the picture and columns (y) to the right, as the map is printed.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import BALL_RADIUS, CELL_OFFSET, GOAL_RADIUS, Maze

SHIFT = 4
"""OpenCV draws at sixteenths of a pixel."""
FLOOR, WALL, EDGE = (250, 249, 246), (70, 77, 92), (48, 54, 67)
GOAL_FILL, GOAL, OLD, NEW, BALL = (
    (214, 236, 214),
    (46, 140, 72),
    (205, 214, 232),
    (52, 101, 190),
    (214, 73, 51),
)


def pixels(xy: ArrayLike, scale: int) -> NDArray[np.float64]:
    """Picture coordinates (right, down) of points (..., 2) in metres, ``scale`` pixels a cell."""
    middle = np.asarray(xy, np.float64) + CELL_OFFSET + 0.5
    return middle[..., ::-1] * scale


def paint(
    maze: Maze, xy: ArrayLike, goal: ArrayLike, trace: ArrayLike | None = None, scale: int = 48
) -> NDArray[np.uint8]:
    """An RGB frame (rows * scale, columns * scale, 3): walls, the goal's disc, trace (T, 2), ball at xy."""
    frame = _background(maze, scale)
    _disc(frame, goal, GOAL_RADIUS, GOAL_FILL, scale, walls=maze.walls)
    _disc(frame, goal, 0.07, GOAL, scale)
    path = np.zeros((0, 2)) if trace is None else np.asarray(trace, np.float64).reshape(-1, 2)
    path = np.concatenate((path[: -1 : len(path) // 200 + 1], path[-1:]))  # enough for the eye, quick to draw
    points = np.rint(pixels(path, scale) * 2**SHIFT).astype(np.int32)
    for i in range(len(points) - 1):
        age = (i + 1) / len(points)
        colour = tuple(int(o + (n - o) * age) for o, n in zip(OLD, NEW, strict=True))
        cv2.line(frame, points[i].tolist(), points[i + 1].tolist(), colour, 2, cv2.LINE_AA, SHIFT)
    _disc(frame, xy, BALL_RADIUS, BALL, scale)
    return frame


def _background(maze: Maze, scale: int) -> NDArray[np.uint8]:
    """Floor and walls, with an edge where they meet."""
    walls = np.kron(maze.walls, np.ones((scale, scale), bool))
    frame = np.where(walls[..., None], np.array(WALL, np.uint8), np.array(FLOOR, np.uint8))
    core = cv2.erode(walls.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(bool)
    frame[walls & ~core] = EDGE
    return np.ascontiguousarray(frame)


def _disc(
    frame: NDArray[np.uint8],
    xy: ArrayLike,
    radius: float,
    colour: tuple[int, int, int],
    scale: int,
    walls: NDArray[np.bool_] | None = None,
) -> None:
    """A filled disc of ``radius`` metres; with ``walls`` it ends at them."""
    centre = np.rint(pixels(xy, scale) * 2**SHIFT).astype(int).tolist()
    size = round(radius * scale * 2**SHIFT)
    before = frame.copy() if walls is not None else frame
    cv2.circle(frame, centre, size, colour, -1, cv2.LINE_AA, SHIFT)
    if walls is not None:
        hidden = np.kron(walls, np.ones((scale, scale), bool))
        frame[hidden] = before[hidden]


class Window:
    """A window that shows frames at a frame rate; raises DFPlannerError where there is no desktop.

    It is Tk's, which comes with Python: the OpenCV that servers install has no windows.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter

            self._root = tkinter.Tk()
        except Exception as e:  # no Tk in this Python, no display, no right to open it
            raise DFPlannerError(
                f"no window can be shown, as that needs a display and Python's tkinter ({e}); "
                "use render_mode='rgb_array'"
            ) from e
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._image = tkinter.PhotoImage
        self._due = 0.0

    def show(self, frame: NDArray[np.uint8], fps: float) -> None:
        """Show a frame (H, W, 3), not sooner than 1 / fps seconds after the one before."""
        height, width = frame.shape[:2]
        ppm = b"P6 %d %d 255 " % (width, height) + frame.tobytes()
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = time.monotonic() + 1.0 / fps
        self._picture = self._image(data=ppm, master=self._root)  # Tk holds no reference of its own
        self._label.configure(image=self._picture)
        self._root.update()

    def close(self) -> None:
        """Close the window."""
        self._root.destroy()
