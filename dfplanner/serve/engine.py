"""The planner behind the server, whatever runtime it runs on, and what the server's metadata says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

from dfplanner.serve.objectives import GOAL_ALONE, OPTIONS, Term, goal_alone, torch_objective
from dfplanner.serve.protocol import PROTOCOL
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, Plan, TokenSpec

Runtime = Literal["torch", "onnx"]
Objectives = Callable[[Sequence[tuple[Term, ...]], TokenSpec], Any]

SERVED = PlannerSettings(horizon=4, action_steps=3, action_chunks=2)
"""A few tokens ahead, as the benchmark's headline row; two chunks of actions, so that clients may ask in good time."""

_MAZE = "x, y in metres, then their velocities in metres a second"
_UNITS = {"maze2d": _MAZE, "multi2d": _MAZE, "PointMaze": _MAZE, "pointmaze": "x, y in the maze's units"}


class PlannerLike(Protocol):
    """What the server needs of a planner; ``dfplanner.planner.Planner`` says what the arguments mean."""

    @property
    def spec(self) -> TokenSpec:
        """What its tokens are made of."""
        ...

    def plan(
        self,
        history: Array,
        objective: Any = None,
        previous: Plan | None = None,
        committed: int = 0,
        generator: Any = None,
        *,
        elapsed: Any = 0,
    ) -> Plan:
        """Plans for a batch."""
        ...


@dataclass(frozen=True)
class Engine:
    """A planner, and how to make its objectives (of a batch's terms) and its source of noise (of a seed)."""

    planner: PlannerLike
    objective: Objectives
    generator: Callable[[int], Any]
    checkpoint: str = ""
    runtime: str = "torch"
    env: str = ""
    """What the checkpoint was trained for, if it says so."""
    options: dict[str, dict[str, str]] = field(default_factory=lambda: OPTIONS)
    """The objectives it knows, with their parameters."""

    def warm_up(self) -> Plan:
        """A plan from the origin, so that the first client does not wait for what is done once."""
        start = np.zeros((1, self.planner.spec.obs_dim), np.float32)
        plan = self.planner.plan(start, None, generator=self.generator(0))
        return self.planner.plan(start, None, plan, generator=self.generator(0), elapsed=1)


def make_planner(
    checkpoint: str | Path,
    runtime: Runtime = "torch",
    *,
    settings: PlannerSettings | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> Engine:
    """An engine for a checkpoint: a name, file or hub id for torch, a file of ``dfplanner export`` for onnx.

    threads: ONNX Runtime's; torch's belong to the process. Imports only what that runtime needs.
    Raises DFPlannerError if it cannot be had.
    """
    settings, name = settings or SERVED, str(checkpoint)
    if runtime == "onnx":
        from dfplanner.runtime import load_planner

        light = load_planner(checkpoint, settings, threads)
        noise: Callable[[int], Any] = np.random.default_rng
        return Engine(light, goal_alone, noise, name, runtime, _env(light.checkpoint.facts), GOAL_ALONE)
    import torch

    from dfplanner.planner import Planner

    planner = Planner.from_pretrained(checkpoint, settings, device)
    return Engine(
        cast(PlannerLike, planner),
        torch_objective,
        lambda seed: torch.Generator(device).manual_seed(seed),
        name,
        runtime,
        _env(planner.checkpoint.facts),
    )


def _env(facts: dict[str, Any]) -> str:
    return str(facts.get("config", {}).get("env") or "")


def describe(engine: Engine, warm: Plan, horizon: int) -> dict[str, Any]:
    """The metadata that greets a client: names, shapes, units, rates. ``warm``: any plan of this engine."""
    spec, place = engine.planner.spec, [len(engine.planner.spec.pos)]
    family = engine.env.split("-")[0].split("_")[0]
    units = _UNITS.get(family, "the environment's own units")
    bounds = {"low": [-1.0] * spec.act_dim, "high": [1.0] * spec.act_dim} if family in _UNITS else {}
    return {
        "protocol": PROTOCOL,
        "checkpoint": engine.checkpoint,
        "env": engine.env,
        "runtime": engine.runtime,
        "observation": {"observation": {"shape": [spec.obs_dim], "dtype": "float32", "units": units}},
        "goal": {"shape": place, "dtype": "float32", "units": units.split(", then")[0], "indices": list(spec.pos)},
        "action": {"shape": [spec.act_dim], "dtype": "float32", **bounds},
        "dt_s": spec.dt_s,
        "horizon": horizon,
        "chunk": warm.chunk,
        "plan_steps": (warm.states.shape[1] - 1) * warm.chunk,
        "objectives": {name: {**options, "weight": "1 by default"} for name, options in engine.options.items()},
    }


def actions_in(plan: Plan) -> int:
    """How many actions a plan holds from its first on; those of chunks still noisy do not count."""
    return plan.chunk * int(np.cumprod(plan.levels[0, 1:, 1] == 0).sum())
