"""The arm following its plans, as a film: the hand's plan drawn into the scene, each token as sure as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.bench.arm_policy import ArmPlannerPolicy
from dfplanner.types import DFPlannerError
from dfplanner.viz import write_film
from dfplanner_envs.arm.baselines import HELD_OUT
from dfplanner_envs.arm.env import HORIZON, VectorArmReach

SIZE = 360, 480
"""Height and width in pixels."""
REST = 8
"""Steps it is watched after arrival."""
GOAL, SURE, UNSURE = (0.1, 0.8, 0.2, 0.7), np.array([0.1, 0.4, 1.0, 1.0]), np.array([1.0, 0.5, 0.1, 0.35])


def film_arm(paths: Sequence[Path], policy: ArmPlannerPolicy, seeds: Sequence[int] = HELD_OUT[:3]) -> None:
    """An episode for each seed, one after the other; written to each path, .gif or .mp4.

    Every token's sphere is as large and pale as its samples disagree: the plan is made four times. Raises
    DFPlannerError where MuJoCo cannot draw.
    """
    frames: list[NDArray[np.uint8]] = []
    scene = _Scene()
    for seed in seeds:
        env = VectorArmReach(1, autoreset=False)
        obs, info = env.reset(seed=[seed])
        goal = info["goal"]
        policy.reset(obs, goal, np.random.default_rng(seed))
        rest = REST
        for step in range(HORIZON):
            action = policy.act(obs, goal, np.zeros(1, np.int64))
            if step % 2 == 0:
                frames.append(scene.draw(env.sim.q[0], goal[0], *_futures(policy, obs)))
            obs, _, terminated, _, _ = env.step(action)
            rest -= bool(terminated[0])
            if not rest:
                break
    for path in paths:
        write_film(path, frames, 2 * policy.dt_s)


def _futures(policy: ArmPlannerPolicy, obs: NDArray[Any], n: int = 4) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean places (T, 3) of the hand in n plans, and how far they differ (T,) in metres."""
    hands = policy.futures(obs, n)
    return hands.mean(0), np.linalg.norm(hands.std(0), axis=-1)


class _Scene:
    """MuJoCo's renderer, and what is drawn into it beside the arm."""

    def __init__(self) -> None:
        import mujoco
        from mujoco import Renderer

        from dfplanner_envs.arm.model import reach_arm

        self._mujoco, self._arm = mujoco, reach_arm()
        self._data = mujoco.MjData(self._arm.model)  # pyright: ignore
        try:
            self._renderer = Renderer(self._arm.model, *SIZE)
        except Exception as e:  # a GL that is absent shows in many ways
            raise DFPlannerError(f"MuJoCo cannot draw here ({e!r}); install EGL, or set MUJOCO_GL") from e
        shadow = int(mujoco.mjtRndFlag.mjRND_SHADOW)  # pyright: ignore
        self._renderer.scene.flags[shadow] = 0  # a plan has none

    def draw(
        self, q: NDArray[Any], goal: NDArray[Any], places: NDArray[Any], spread: NDArray[Any]
    ) -> NDArray[np.uint8]:
        """The arm at q (J,), its goal (3,), and places (T, 3) of the hand that are sure to ``spread`` (T,) metres."""
        self._data.qpos[self._arm.qpos] = q
        self._mujoco.mj_forward(self._arm.model, self._data)  # pyright: ignore
        self._renderer.update_scene(self._data, "front")
        self._sphere(goal, 0.02, GOAL)
        for place, metres in zip(places, spread, strict=True):
            share = float(np.clip(metres / 0.06, 0, 1))
            self._sphere(place, 0.008 + 0.03 * share, (1 - share) * SURE + share * UNSURE)
        return self._renderer.render()

    def _sphere(self, place: NDArray[Any], radius: float, rgba: Any) -> None:
        scene = self._renderer.scene
        if scene.ngeom < scene.maxgeom:
            ball = self._mujoco.mjtGeom.mjGEOM_SPHERE  # pyright: ignore
            self._mujoco.mjv_initGeom(  # pyright: ignore
                scene.geoms[scene.ngeom], ball, np.full(3, radius), place, np.eye(3).ravel(), np.float32(rgba)
            )
            scene.ngeom += 1
