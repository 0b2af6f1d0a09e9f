"""``dfplanner.planner`` in numpy: history + goal (+ last plan) -> Plan, the network run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.commitment import Elapsed, begin_after, begin_with, check_foreseen, check_previous
from dfplanner.matrices import Matrix
from dfplanner.problem import Request, checked_history, checked_horizon, rest
from dfplanner.runtime.file import OnnxCheckpoint
from dfplanner.runtime.goals import Goal, goals_of
from dfplanner.runtime.request import new_request, warm_start
from dfplanner.runtime.sampler import Noise, OnnxSampler, noise_from
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, DFPlannerError, Plan


def load_planner(path: str | Path, settings: PlannerSettings | None = None, threads: int = 1) -> OnnxPlanner:
    """The planner in a file of ``dfplanner export``; raises DFPlannerError if it is none. Imports no torch."""
    return OnnxPlanner(OnnxCheckpoint.load(path, threads), settings)


class OnnxPlanner:
    """An exported checkpoint that plans as ``dfplanner.planner.Planner`` does, but for what needs a gradient."""

    device = "cpu"

    def __init__(self, checkpoint: OnnxCheckpoint, settings: PlannerSettings | None = None) -> None:
        self.checkpoint, self.settings = checkpoint, settings or PlannerSettings()
        self.spec, self.tokenizer, self.schedule = checkpoint.spec, checkpoint.tokenizer, checkpoint.schedule
        code = self.tokenizer
        self._code = {"act_mean": code.act_mean, "act_basis": code.act_basis, "act_scale": code.act_scale}
        self.calls = 0
        """Network evaluations that the last plan took."""

    def plan(
        self,
        history: Array | NDArray[np.float64],
        objective: Any = None,
        previous: Plan | None = None,
        committed: int = 0,
        generator: Any = None,
        *,
        elapsed: Elapsed = 0,
        foreseen: Array | NDArray[np.float64] | None = None,
        trust: int = 0,
        settings: PlannerSettings | None = None,
        trace: bool = False,
    ) -> Plan:
        """Plans for a batch of B problems; the arguments are ``Planner.plan``'s.

        objective: a goal (g,) or (B, g), a Goal, a ReachGoal, or a sum of those. generator: a np.random.Generator; a
        function from a shape to standard normal noise; or a torch.Generator, with which the plan is the torch planner's
        to 1e-4. Raises DFPlannerError on what it cannot use.
        """
        s = settings or self.settings
        goals, noise = goals_of(objective, s), noise_from(generator)
        horizon = checked_horizon(self.spec, s, trust, self.schedule.levels)
        seen = checked_history(self.spec, history)
        check_previous(len(seen), previous, elapsed, committed)
        if foreseen is not None:
            previous = check_foreseen(previous, committed)
            known, since = {"trust": trust, "settings": settings, "trace": trace}, elapsed + committed
            plan = self.plan(foreseen, objective, previous, 0, generator, elapsed=since, **known)
            return begin_after(plan, previous, elapsed, committed, self.spec, self._code)
        many = np.tile(seen, (s.candidates, 1, 1))
        r = new_request(self.checkpoint, many, goals, min(horizon, self.spec.horizon), trust, s, noise)
        if previous is not None:
            warm_start(r, self.checkpoint, previous, elapsed, committed, s, noise)
        steps: list[tuple[Array, Matrix]] = []

        def tracer(x0: Array, row: Matrix) -> None:
            states = self.tokenizer.decode_obs(x0[: len(seen), r.context :, : self.spec.obs_dim])
            steps.append((states, row[r.context :].copy()))

        sampler, split, seer = OnnxSampler(self.checkpoint, s.stabilise), r.observation_rows, tracer if trace else None
        x, calls = sampler(r.x, r.matrix[: split + 1], eta=s.eta, noise=noise, trace=seer)
        if s.candidates > 1 or s.incumbent:
            x = self._best(x, len(seen), r, goals, previous if s.incumbent else None, elapsed)
        x, more = sampler(x, r.matrix[split:], eta=s.eta, noise=noise, trace=seer)
        self.calls = calls + more
        tokens, levels = x[:, r.context :], r.matrix[-1, r.context :]
        while tokens.shape[1] < horizon:
            tokens, levels = self._continue(tokens, levels, horizon, goals, sampler, s, noise)
        plan = self._plan(tokens, levels, goals, tuple(steps))
        if previous is not None and committed:
            known = int((levels[1:, 1] == 0).sum())
            begin_with(plan.actions, known, previous, elapsed, committed, self.spec, self._code)
        return plan

    def _best(
        self, x: Array, b: int, r: Request[Array], goals: Sequence[Goal], previous: Plan | None, elapsed: Elapsed
    ) -> Array:
        """Of the candidates (n·B, ...) for each problem, and the rest of the previous plan, the best by score."""
        if not goals:
            raise DFPlannerError("choosing among candidate plans needs an objective; pass one, or set candidates to 1")
        d = self.spec.obs_dim
        if previous is not None:
            old, first = x[:b].copy(), r.context + 1
            body, fits = rest(self.spec, previous, elapsed, x.shape[1] - first)
            old[:, first : first + fits, :d] = body
            old[:, first + fits :, :d] = body[:, -1:] if fits else old[:, r.context : first, :d]
            held = r.matrix[0, :, 0] == 0  # a goal at the last token
            old[:, held, :d] = x[:b, held, :d]
            x = np.concatenate([x, old])
        score = self._score(goals, self.tokenizer.decode_obs(x[:, r.context :, :d]))
        best = score.reshape(-1, b).argmax(0)
        return x.reshape(-1, b, *x.shape[1:])[best, np.arange(b)]

    def _score(self, goals: Sequence[Goal], states: Array) -> Array:
        return sum((g.score(self.spec, states) for g in goals), np.zeros(len(states), np.float32))

    def _continue(
        self,
        tokens: Array,
        levels: Matrix,
        horizon: int,
        goals: Sequence[Goal],
        sampler: OnnxSampler,
        s: PlannerSettings,
        noise: Noise,
    ) -> tuple[Array, Matrix]:
        """Rolls past the trained horizon: the last few tokens become the context of a fresh window."""
        keep = min(s.overlap, self.spec.horizon - 1, tokens.shape[1])
        s = replace(s, candidates=1, action_chunks=max(0, s.action_chunks - tokens.shape[1] + 1))
        seen = self.tokenizer.decode_obs(tokens[:, -keep:, : self.spec.obs_dim])
        more = min(horizon - tokens.shape[1] + 1, self.spec.horizon - keep + 1)
        r = new_request(self.checkpoint, seen, goals, more, 0, s, noise)
        x, calls = sampler(r.x, r.matrix, eta=s.eta, noise=noise)
        self.calls += calls
        return np.concatenate([tokens, x[:, 1 + keep :]], 1), np.concatenate([levels, r.matrix[-1, 1 + keep :]])

    def _plan(
        self,
        tokens: Array,
        levels: Matrix,
        goals: Sequence[Goal],
        trace: tuple[tuple[Array, Matrix], ...],
    ) -> Plan:
        d = self.spec.obs_dim
        states, chunks = self.tokenizer.decode_obs(tokens[..., :d]), self.tokenizer.decode_actions(tokens[:, 1:, d:])
        chunks = np.where((levels[1:, 1] == 0)[None, :, None, None], chunks, np.float32(0))
        actions = chunks.reshape(len(chunks), -1, self.spec.act_dim)
        if not np.isfinite(actions).all() or not np.isfinite(states).all():
            raise DFPlannerError("the plan came out with numbers that are not finite; check the checkpoint")
        every = np.repeat(levels[None], len(states), 0)
        score = self._score(goals, states)
        return Plan(states, actions, every, score, self.spec.chunk, self.spec.dt_s, tokens, trace)
