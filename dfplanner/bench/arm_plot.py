"""The hand's ways to held-out goals, from above and from the side, among the scene's boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dfplanner.checkpoint import atomic_write
from dfplanner_envs.arm.baselines import ArmRollout
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.model import reach_arm

VIEWS = ((0, 1, "from above"), (0, 2, "from the side"))
SHOWN = 30
"""Episodes drawn."""


def obstacles() -> list[tuple[Floats, Floats]]:
    """Centres and half sizes (3,) of what stands on the table: boxes, none of them turned, and upright cylinders."""
    model = reach_arm().model
    kind, size = model.geom_type, model.geom_size
    box, cylinder = (int(t) for t in (mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER))  # pyright: ignore
    found = []
    for i in range(model.ngeom):
        if model.geom_bodyid[i] == 0 and kind[i] in (box, cylinder) and model.geom(i).name != "table":
            half = size[i] if kind[i] == box else size[i][[0, 0, 1]]
            found.append((np.array(model.geom_pos[i]), np.array(half)))
    return found


def plot_arm(path: Path, rollouts: Sequence[tuple[str, ArmRollout]]) -> None:
    """A .png with a row of two views for each policy's rollout: ways of the hand, starts, goals, what failed in red."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(9, 4.2 * len(rollouts)), layout="constrained")
    grid: Any = figure.subplots(len(rollouts), len(VIEWS), squeeze=False)
    for (policy, result), axes in zip(rollouts, grid, strict=True):
        for axis, (u, v, view) in zip(axes, VIEWS, strict=True):
            for centre, half in obstacles():
                corner, size = (centre - half)[[u, v]], 2 * half[[u, v]]
                axis.add_patch(Rectangle((corner[0], corner[1]), size[0], size[1], color="0.8"))
            for i in range(min(SHOWN, len(result.seeds))):
                way = result.trajectories[i, : result.steps[i] + 1, :3]
                colour = "tab:blue" if result.success[i] else "tab:red"
                axis.plot(way[:, u], way[:, v], color=colour, lw=0.8, alpha=0.7)
                axis.plot(*way[0, [u, v]], ".", color="0.3", ms=4)
                axis.plot(*result.goals[i, [u, v]], "*", color="tab:green", ms=6)
            rate = 100 * result.success.mean()
            axis.set(title=f"{policy}, {view}: {rate:.0f} % of {len(result.seeds)}", aspect="equal")
            axis.set(xlim=(-0.85, 0.95), ylim=(-0.85, 0.85) if v == 1 else (-0.1, 1.2))
            axis.set(xlabel=f"{'xyz'[u]} (m)", ylabel=f"{'xyz'[v]} (m)")

    def write(part: str) -> None:
        figure.savefig(part, dpi=110, format="png")

    atomic_write(path, write)
