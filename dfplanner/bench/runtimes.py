"""How long a whole plan takes under each runtime: torch as it is, torch compiled, ONNX; interleaved in one run.

Every round times one plan of each runtime in turn, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfplanner.bench.report import versions
from dfplanner.checkpoint import Checkpoint
from dfplanner.export import export_onnx
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner
from dfplanner.runtime import load_planner
from dfplanner.settings import PlannerSettings
from dfplanner.types import DFPlannerError, Plan

SETTINGS: dict[str, PlannerSettings] = {
    "policy": PlannerSettings(horizon=4, action_steps=3),
    "planner": PlannerSettings(scheme="pyramid", scale=0.5, steps=8),
}
"""What is timed: the benchmark's headline row, four tokens ahead; and a whole horizon, the near future first."""

MakePlan = Callable[[np.ndarray, ReachGoal, torch.Generator, PlannerSettings], Plan]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a whole plan, from observations to actions."""

    checkpoint: str
    settings: str
    batch: int
    runtime: str
    evaluations: int
    """Passes through the network."""
    p50_ms: float
    p99_ms: float
    off: float
    """The largest difference from torch's plan of the same noise, in standard deviations of the observations."""


def compiler() -> str | None:
    """Why torch cannot compile here, or None if it can."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        return "there is no C++ compiler"
    try:
        torch.compile(lambda x: x + 1, dynamic=True)(torch.zeros(2))
    except Exception as e:  # whatever it raises, it cannot
        return str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
    return None


def time_runtimes(
    checkpoints: Sequence[str],
    batches: Sequence[int] = (1, 16),
    plans: int = 100,
    seed: int = 0,
    *,
    compiled: bool = True,
    say: Callable[[str], Any] = print,
) -> list[Timing]:
    """The runtimes' times for each checkpoint, settings and batch, on one thread: ``plans`` plans, two more unmeasured.

    What is skipped is said, with its reason. Raises DFPlannerError if a checkpoint or a number cannot be.
    """
    if plans < 1 or not batches or min(batches) < 1:
        raise DFPlannerError(f"{plans} plans of batches {tuple(batches)} were asked for; expected at least 1 each")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    why = compiler() if compiled else "it was not asked for"
    if why:
        say(f"torch compiled: skipped, for {why}")
    found: list[Timing] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in checkpoints:
            runtimes = _runtimes(Checkpoint.load(name), folder / "model.onnx", compiled=why is None)
            for label, settings in SETTINGS.items():
                for batch in batches:
                    found += _time(name, label, settings, batch, runtimes, plans, seed)
    return found


def _runtimes(checkpoint: Checkpoint, file: Path, *, compiled: bool) -> dict[str, Planner | Any]:
    planners: dict[str, Planner | Any] = {"torch eager": Planner(checkpoint)}
    if compiled:
        model = torch.compile(copy.deepcopy(checkpoint.model), dynamic=True)
        planners["torch compiled"] = Planner(replace(checkpoint, model=model))
    planners["ONNX Runtime"] = load_planner(export_onnx(checkpoint, file))
    return planners


def _time(
    name: str, label: str, settings: PlannerSettings, batch: int, planners: dict[str, Any], plans: int, seed: int
) -> list[Timing]:
    """All runtimes on the same problems, in turn."""
    first: Planner = planners["torch eager"]
    rng, spec, tokenizer = np.random.default_rng(seed), first.spec, first.tokenizer
    mean, std = tokenizer.obs_mean.numpy(), tokenizer.obs_std.numpy()
    pos, ms, off = list(spec.pos), {r: [] for r in planners}, dict.fromkeys(planners, 0.0)
    for i in range(plans + 2):
        seen = mean + std * rng.uniform(-1, 1, (batch, spec.obs_dim)).astype(np.float32)
        goal = ReachGoal(mean[pos] + std[pos] * rng.uniform(-1, 1, (batch, len(pos))), pos=pos)
        made: dict[str, Plan] = {}
        for runtime in planners:
            generator = torch.Generator().manual_seed(seed + i)
            began = time.perf_counter()
            made[runtime] = planners[runtime].plan(seen, goal, generator=generator, settings=settings)
            ms[runtime].append(1e3 * (time.perf_counter() - began))
        for runtime, plan in made.items():
            off[runtime] = max(off[runtime], float(np.abs((plan.states - made["torch eager"].states) / std).max()))
    at = {r: [float(q) for q in np.percentile(t[2:], [50, 99])] for r, t in ms.items()}
    return [Timing(name, label, batch, r, planners[r].calls, at[r][0], at[r][1], off[r]) for r in planners]


def table(timings: Sequence[Timing]) -> str:
    """The times as Markdown."""
    lines = ["| checkpoint | settings | batch | evaluations | runtime | p50 ms | p99 ms | off torch |"]
    lines.append("| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for t in timings:
        off = "–" if t.runtime == "torch eager" else f"{t.off:.0e}"
        start = f"| {t.checkpoint} | {t.settings} | {t.batch} | {t.evaluations} | {t.runtime} "
        lines.append(f"{start}| {t.p50_ms:.2f} | {t.p99_ms:.2f} | {off} |")
    return "\n".join(lines)


def to_dict(timings: Sequence[Timing], plans: int, seed: int) -> dict[str, Any]:
    """All of it, JSON-ready, with what it was made with."""
    settings = {name: asdict(s) for name, s in SETTINGS.items()}
    head = {"versions": versions(), "threads": 1, "plans": plans, "seed": seed, "settings": settings}
    return {**head, "timings": [asdict(t) for t in timings]}
