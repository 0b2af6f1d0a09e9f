"""The planner node's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dfplanner.types import DFPlannerError
from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.parameters import Param
from dfplanner_robot.nodes.worker import Launch

RUNTIMES = ("torch", "onnx")
FIXED = ("rate_hz", "frame_id", "server_url")
"""May change only while the node is unconfigured; what ``Launch`` has can be set at any time and is read later."""
LATER = "; read at configure and by reload"


def _runtime(value: str) -> None:
    if value not in RUNTIMES:
        raise DFPlannerError(f"runtime is {value!r}; expected one of {', '.join(RUNTIMES)}")


def _address(value: str) -> None:
    if value and not value.startswith(("ws://", "wss://")):
        raise DFPlannerError(f"server_url is {value!r}; expected ws://HOST:PORT, or nothing for a worker of the node's")


def _given(name: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if not value.strip():
            raise DFPlannerError(f"{name} is empty; give a name")

    return check


_D = Launch()


def _count(name: str, about: str, low: int, high: int) -> Param:
    return Param(name, getattr(_D, name), about + LATER, low, high, live=True)


MODEL = Param("model", "", "what is driven: '': the bundled arm; maze2d-umaze, -medium, -large: a ball")
PARAMETERS = (
    MODEL,
    Param("checkpoint", _D.checkpoint, f"bundled name, file or hub id{LATER}", live=True, check=_given("checkpoint")),
    Param("runtime", _D.runtime, f"{' or '.join(RUNTIMES)}{LATER}", live=True, check=_runtime),
    Param("server_url", "", "a dfplanner serve that runs; empty: a process of the node's", live=True, check=_address),
    _count("seed", "of the planner's noise; -1: another each time", -1, 2**31 - 1),
    _count("horizon", "tokens of a plan, the present one included", 2, 64),
    _count("action_chunks", "chunks whose actions a plan holds", 1, 16),
    _count("steps", "levels the observations fall through", 1, 100),
    _count("action_steps", "levels the actions fall through, after the observations; 0: with them", 0, 100),
    _count("threads", "that the worker takes", 1, 64),
    Param("rate_hz", 100.0, "of the control loop", 50.0, 200.0, live=True),
    Param("replan_every", 2, "actions after which the next plan is asked for", 1, 100, live=True),
    Param("goal_tolerance_m", 0.02, "the hand has arrived within so many metres of the goal", 0.001, 0.5, live=True),
    Param("backs_off", True, "goes back a little where it comes no further, and tries again from there", live=True),
    Param("frame_id", names.BASE_FRAME, "the arm's base, in which goals come", live=True, check=_given("frame_id")),
    Param("autostart", False, "configures and activates by itself"),
)


def parameters(defaults: Mapping[str, Any]) -> tuple[Param, ...]:
    """Those of a node whose body has other ``defaults``; the model is the body, and not among them."""
    return tuple(replace(p, default=defaults.get(p.name, p.default)) for p in PARAMETERS if p is not MODEL)


def kept(now: dict[str, object], wanted: dict[str, object]) -> None:
    """Raises DFPlannerError where a parameter is to change that cannot while the planner is configured."""
    for name in FIXED:
        if wanted[name] != now[name]:
            raise DFPlannerError(f"{name} cannot change while the planner is configured; clean it up first")
