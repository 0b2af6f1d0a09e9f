"""A planner whose plans say whose they are, and that waits, counts and fails as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dfplanner.types import Plan, TokenSpec

SPEC = TokenSpec(obs_dim=4, act_dim=2, chunk=5, act_code=4, horizon=6, dt_s=0.02)


class FakePlanner:
    """Every action of a plan is the goal it was asked for, plus the number in the generator; states are the present.

    It fails on observations that begin with 13, waits for ``gate`` on those that begin with 7, and notes its calls.
    """

    def __init__(self, spec: TokenSpec = SPEC, tokens: int = 4) -> None:
        self.spec, self.tokens = spec, tokens
        self.calls: list[dict[str, Any]] = []
        self.gate, self.at_gate = threading.Event(), threading.Event()

    def plan(
        self,
        history: NDArray[np.float32],
        objective: Any = None,
        previous: Plan | None = None,
        committed: int = 0,
        generator: Any = None,
        *,
        elapsed: Any = 0,
    ) -> Plan:
        b, t, chunk = len(history), self.tokens, self.spec.chunk
        self.calls.append({"n": b, "previous": previous, "committed": committed, "elapsed": elapsed, "seen": history})
        if (history[:, 0] == 7).any():
            self.at_gate.set()
            assert self.gate.wait(60)
        if (history[:, 0] == 13).any():
            raise ArithmeticError("thirteen")
        goals = np.zeros((b, 2), np.float32) if objective is None else objective.goal
        actions = np.repeat((goals + generator)[:, None], (t - 1) * chunk, 1).astype(np.float32)
        actions[:, 2 * chunk :] = 0
        if previous is not None and committed:
            first = np.broadcast_to(elapsed, b)
            for i in range(b):
                actions[i, :committed] = previous.actions[i, first[i] : first[i] + committed]
        levels = np.zeros((b, t, 2), np.int64)
        levels[:, 3:, 1] = 1000  # two chunks of actions are known
        states = np.repeat(history[:, None], t, 1) + np.arange(t, dtype=np.float32)[:, None]
        tokens = np.zeros((b, t, self.spec.width), np.float32)
        return Plan(states, actions, levels, history[:, 0], chunk, self.spec.dt_s, tokens)


@pytest.fixture
def planner() -> FakePlanner:
    return FakePlanner()


@pytest.fixture
def new_planner() -> Callable[..., FakePlanner]:
    return FakePlanner
