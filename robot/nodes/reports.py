"""What the planner node says of itself on /diagnostics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from dfplanner_robot.nodes.convert import ERROR, OK, WARN, status
from dfplanner_robot.nodes.pilot import Pilot
from dfplanner_robot.trajectory import Floats

COUNTED = ("late", "expired", "refused", "anew", "blind", "held", "bad", "old")
"""What of the core's counts is told."""


@dataclass
class Troubles:
    """What stands in the way of work, a sentence each; empty where nothing does."""

    failed: str = ""
    """Why it could not be configured."""
    refused: str = ""
    """Why the last goal was."""
    missed: str = ""
    """Who is not heard."""


def planner_status(life: str, pilot: Pilot | None, now: float, troubles: Troubles, gaps: Floats) -> DiagnosticStatus:
    """The planner's status. ``gaps``: seconds between ticks."""
    if pilot is None:
        level, message = OK, life
        if troubles.failed:
            level, message = ERROR, f"configuring failed: {troubles.failed}"
        elif troubles.refused:
            level, message = WARN, troubles.refused
        return status("planner", level, message, {"lifecycle": life}, "arm")
    level, message = _summary(life, pilot, now, troubles)
    return status("planner", level, message, {"lifecycle": life, **_values(pilot, now, gaps)}, "arm")


def chunk_s(pilot: Pilot) -> float:
    """Seconds that the actions of a plan last; infinite if the server does not say."""
    return float(pilot.worker.metadata.get("horizon", math.inf)) * pilot.core.settings.dt_s


def _summary(life: str, pilot: Pilot, now: float, troubles: Troubles) -> tuple[bytes, str]:
    worker = pilot.worker
    if worker.state != "ready":
        return ERROR, f"the planner is {worker.state}: {worker.reason}; it is being started again"
    if now <= 0:
        return WARN, "waits for simulated time on /clock: none came"
    if troubles.missed:
        return WARN, troubles.missed
    if pilot.times and pilot.times[-1] > chunk_s(pilot):
        return WARN, f"a plan took {1e3 * pilot.times[-1]:.0f} ms, longer than its {1e3 * chunk_s(pilot):.0f} ms last"
    if pilot.error:
        return WARN, f"no plan: {pilot.error}"
    if troubles.refused:
        return WARN, f"{pilot.phase}; the last goal was refused: {troubles.refused}"
    if life == "active" and pilot.phase == "held":
        return WARN, f"waits for the guard, which is {pilot.guard}"
    why = f" ({pilot.why})" if pilot.why else ""
    if life == "active" and pilot.phase == "backing":
        return WARN, f"backing: it came no further{why}; it goes back a little, and tries again from there"
    if life == "active" and pilot.phase == "blocked":
        return WARN, f"blocked: the guard refuses this way{why}; it is tried again now and then, or give another goal"
    return OK, pilot.phase if life == "active" else life


def _values(pilot: Pilot, now: float, gaps: Floats) -> dict[str, object]:
    worker, counts = pilot.worker, pilot.core.counts
    values: dict[str, object] = {"phase": pilot.phase, "guard": pilot.guard or "silent"}
    values["goal"] = "none" if pilot.goal is None else ", ".join(f"{x:.3f}" for x in pilot.goal.place)
    values["distance_m"] = pilot.distance
    if pilot.times:
        ms = 1e3 * np.array(pilot.times)
        values |= {"inference_ms_last": float(ms[-1]), "inference_ms_p50": float(np.median(ms))}
        values["inference_ms_p99"] = float(np.quantile(ms, 0.99))
    if len(gaps):
        values |= {"loop_ms_p50": 1e3 * float(np.median(gaps)), "loop_ms_longest": 1e3 * float(gaps.max())}
    values["plan_age_s"] = math.nan if pilot.begun is None else now - pilot.begun
    values |= {"plans": pilot.plans, **{name: counts[name] for name in COUNTED}}
    values |= {"worker": worker.state, "worker_pid": worker.pid or "none", "worker_restarts": worker.restarts}
    values["source"] = worker.launch.source
    return values
