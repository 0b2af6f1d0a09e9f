"""From what was seen and what is wanted to a plan: history + objective (+ last plan) -> Plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplanner import matrices
from dfplanner.checkpoint import Checkpoint
from dfplanner.guidance import Objective, ReachGoal, for_batch
from dfplanner.matrices import Matrix
from dfplanner.models.build import Denoiser
from dfplanner.sampler import Guidance, Sampler
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, DFPlannerError, Plan


@dataclass
class _Request:
    """A problem on its way to the sampler: tokens (B, 1 + H + F, C) at the levels of the matrix's first row."""

    x: Tensor
    matrix: Matrix
    context: int

    @property
    def observation_rows(self) -> int:
        """Steps before the actions alone fall: until then plans can be compared."""
        falls = (np.diff(self.matrix[..., 0], axis=0) != 0).any(1)
        return int(np.flatnonzero(falls)[-1]) + 1 if falls.any() else 0


class Planner:
    """A checkpoint that plans. Everything a plan depends on is an argument of ``plan``."""

    def __init__(self, checkpoint: Checkpoint, settings: PlannerSettings | None = None) -> None:
        self.checkpoint, self.settings = checkpoint, settings or PlannerSettings()
        self.spec, self.tokenizer, self.schedule = checkpoint.spec, checkpoint.tokenizer, checkpoint.schedule
        self.device = self.tokenizer.obs_mean.device
        self.parts = torch.from_numpy(self.tokenizer.part_of).to(self.device)
        self.calls = 0
        """Network evaluations that the last plan took."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, settings: PlannerSettings | None = None, device: str = "cpu"
    ) -> Planner:
        """By bundled name, file or hub id; raises DFPlannerError if it cannot be had."""
        return cls(Checkpoint.load(name_or_path, device), settings)

    def plan(
        self,
        history: Array | NDArray[np.float64],
        objective: Objective | None = None,
        previous: Plan | None = None,
        committed: int = 0,
        generator: torch.Generator | None = None,
        *,
        elapsed: int = 0,
        trust: int = 0,
        settings: PlannerSettings | None = None,
        trace: bool = False,
    ) -> Plan:
        """Plans for a batch of B problems.

        history (B, obs): the present; or (B, H, obs): observations one chunk apart, the present last. ``previous``,
        with the ``elapsed`` environment steps since it began, warm-starts; its next ``committed`` actions are kept.
        ``trust``: the observations' noise level, 0 if exact. Raises DFPlannerError on what it cannot use.
        """
        s = settings or self.settings
        horizon = self.spec.horizon if s.horizon is None else s.horizon
        if horizon < 2:
            raise DFPlannerError(f"a plan needs a horizon of at least 2 tokens, got {horizon}")
        if min(committed, elapsed, trust) < 0 or trust > self.schedule.levels:
            raise DFPlannerError(
                f"committed {committed}, elapsed {elapsed} and trust {trust} were given; expected counts of steps, and "
                f"a level of 0 to {self.schedule.levels}"
            )
        if committed and previous is None:
            raise DFPlannerError(
                f"{committed} actions are said to be committed, but no previous plan was given; pass previous="
            )
        seen = self._history(history)
        r = self._request(
            seen.repeat(s.candidates, 1, 1), objective, min(horizon, self.spec.horizon), trust, s, generator
        )
        if previous is not None:
            self._warm_start(r, previous, elapsed, committed, s, generator)
        steps: list[tuple[Array, Matrix]] = []

        def tracer(x0: Tensor, row: Matrix) -> None:
            steps.append((self._states(x0[: len(seen), r.context :]), row[r.context :].copy()))

        sampler = Sampler(
            cast(Denoiser, self.checkpoint.model), self.schedule, self.checkpoint.prediction, self.parts, s.stabilise
        )
        seer = tracer if trace else None
        split = r.observation_rows
        x, calls = sampler(
            r.x,
            r.matrix[: split + 1],
            guidance=self._guidance(objective, s, r),
            eta=s.eta,
            generator=generator,
            trace=seer,
        )
        if s.candidates > 1 or s.incumbent:
            x = self._best(x, len(seen), r, objective, previous if s.incumbent else None, elapsed)
        x, more = sampler(x, r.matrix[split:], eta=s.eta, generator=generator, trace=seer)
        self.calls = calls + more
        tokens, levels = x[:, r.context :], r.matrix[-1, r.context :]
        while tokens.shape[1] < horizon:
            tokens, levels = self._continue(tokens, levels, horizon, objective, sampler, s, generator)
        return self._plan(tokens, levels, objective, previous, elapsed, committed, tuple(steps))

    def _best(
        self, x: Tensor, b: int, r: _Request, objective: Objective | None, previous: Plan | None, elapsed: int
    ) -> Tensor:
        """Of the candidates (n·B, ...) for each problem, and the rest of the previous plan, the best by score."""
        if objective is None:
            raise DFPlannerError("choosing among candidate plans needs an objective; pass one, or set candidates to 1")
        if previous is not None:
            rest = x[:b].clone()
            d, first = self.spec.obs_dim, r.context + 1
            body, fits = self._rest(previous, elapsed, x.shape[1] - first)
            rest[:, first : first + fits, :d] = body
            rest[:, first + fits :, :d] = body[:, -1:] if fits else rest[:, r.context : first, :d]
            held = torch.from_numpy(r.matrix[0, :, 0] == 0).to(self.device)  # a goal at the last token
            rest[:, held, :d] = x[:b, held, :d]
            x = torch.cat([x, rest])
        states, chunks = self._decode(x[:, r.context :])
        best = objective(states, chunks).unflatten(0, (-1, b)).argmax(0)
        return x.unflatten(0, (-1, b))[best, torch.arange(b, device=x.device)]

    def _rest(self, previous: Plan, elapsed: int, tokens: int) -> tuple[Tensor, int]:
        """Observations (B, n, obs) a previous plan foresaw for the next ``tokens`` tokens, as far as it goes."""
        old = torch.from_numpy(previous.tokens).to(self.device)[..., : self.spec.obs_dim]
        where = torch.arange(1, tokens + 1, device=self.device) + elapsed / self.spec.chunk
        where = where[where <= old.shape[1] - 1]
        lo = where.floor().long().clamp(max=max(0, old.shape[1] - 2))
        f = (where - lo).to(old)[:, None]
        return (1 - f) * old[:, lo] + f * old[:, lo + 1], len(where)

    def _history(self, history: Array | NDArray[np.float64]) -> Tensor:
        h = np.asarray(history, np.float32)
        h = h[:, None] if h.ndim == 2 else h
        if h.ndim != 3 or h.shape[2] != self.spec.obs_dim or h.shape[0] < 1 or h.shape[1] < 1:
            raise DFPlannerError(
                f"history has the shape {np.shape(history)}; expected (batch, {self.spec.obs_dim}) or "
                f"(batch, observations, {self.spec.obs_dim})"
            )
        if not np.isfinite(h).all():
            raise DFPlannerError(
                "history holds a NaN or an infinity; give level `trust` to a doubtful sensor instead of a broken number"
            )
        return torch.from_numpy(h).to(self.device)

    def _request(
        self,
        seen: Tensor,
        objective: Objective | None,
        tokens: int,
        trust: int,
        s: PlannerSettings,
        generator: torch.Generator | None,
    ) -> _Request:
        """Noise, with what is known put in, and the matrix that says how much of it is known."""
        b, context, k = seen.shape[0], seen.shape[1], self.schedule.levels
        future = min(tokens - 1, self.spec.horizon - context)
        if future < 1:
            raise DFPlannerError(
                f"{context} observations of history leave no room in a model of {self.spec.horizon} tokens; "
                f"give at most {self.spec.horizon - 1}"
            )
        levels = matrices.level_list(k, s.steps)
        scale = min(s.scale, future) if s.scheme == "rolling" else s.scale
        observations = matrices.scheme(s.scheme, future, levels, scale)
        past = np.repeat(np.minimum(observations[:, :1], trust), context, 1)
        observations = np.concatenate([past, observations], 1)
        chunks = range(context, context + min(s.action_chunks, future))
        if s.action_steps:
            matrix = matrices.observations_then_actions(observations, matrices.level_list(k, s.action_steps), chunks, k)
        else:
            matrix = matrices.together(observations, chunks, k)
        goal, goal_levels = self._goal(objective, b, s)
        x = torch.randn((b, 1 + context + future, self.spec.width), generator=generator, device=self.device)
        known = self.schedule.rates(torch.tensor(goal_levels, device=self.device)[self.parts])
        x[:, 0] = known[0] * goal + known[1] * x[:, 0]
        # a doubtful observation is as it would be after noise of its level: it already holds that noise itself
        if trust < k:  # a missing one is pure noise
            alpha = self.schedule.rates(torch.tensor(trust))[0].to(self.device)
            x[:, 1 : context + 1, : self.spec.obs_dim] = alpha * self.tokenizer.encode_obs(seen)
        matrix = matrices.with_prefix(matrix, np.array([goal_levels]))
        for _, term in objective.terms if objective else ():
            if isinstance(term, ReachGoal) and term.how == "last":
                goal = for_batch(term.goal, b, s.candidates).to(self.device)
                x[:, -1, : self.spec.obs_dim] = self.tokenizer.goal_token(goal)[:, : self.spec.obs_dim]
                matrix[:, -1, 0] = 0
        return _Request(x, matrix, context)

    def _goal(self, objective: Objective | None, b: int, s: PlannerSettings) -> tuple[Tensor, list[int]]:
        """The goal token (B, C) and the levels of its two parts, goal and pace."""
        k = self.schedule.levels
        level, goal = k, torch.zeros(b, len(self.spec.pos))
        for _, term in objective.terms if objective else ():
            if isinstance(term, ReachGoal) and term.how == "token":
                goal, level = for_batch(term.goal, b, s.candidates), term.level
        if not 0 <= level <= k:
            raise DFPlannerError(f"the goal's level is {level}; expected a noise level, 0 (exact) to {k} (unknown)")
        pace = torch.zeros(b, 2, device=self.device)
        pace[:, 0] = s.pace or 0.0
        stay = b // s.candidates * (s.candidates // 4)
        if stay:  # the last quarter of the candidates for each problem stay where they are, the others go
            pace[-stay:] = torch.tensor([0.0, 1.0], device=self.device)
        return self.tokenizer.goal_token(goal.to(self.device), pace), [level, k if s.pace is None else 0]

    def _warm_start(
        self,
        r: _Request,
        previous: Plan,
        elapsed: int,
        committed: int,
        s: PlannerSettings,
        generator: torch.Generator | None,
    ) -> None:
        """Puts the rest of the previous plan, re-noised, where there was pure noise, and holds committed chunks."""
        b, k = r.x.shape[0], self.schedule.levels
        if previous.tokens.shape[0] * s.candidates != b:
            raise DFPlannerError(
                f"the previous plan is for a batch of {previous.tokens.shape[0]}, the history for {b // s.candidates}; "
                "they must agree"
            )
        start = r.matrix[0].copy()
        first = 1 + r.context
        body, fits = self._rest(previous, elapsed, r.x.shape[1] - first)
        if fits and s.warm_level < k:
            alpha, sigma = self.schedule.rates(torch.tensor(s.warm_level))
            body = body.repeat(s.candidates, 1, 1)
            noise = torch.randn(body.shape, generator=generator, device=self.device)
            loose = np.flatnonzero(start[first : first + fits, 0] > s.warm_level)  # all but a goal at the last token
            r.x[:, first + loose, : self.spec.obs_dim] = (alpha * body + sigma * noise)[:, loose]
            start[first + loose, 0] = s.warm_level
        whole = committed // self.spec.chunk
        if committed > (r.x.shape[1] - first) * self.spec.chunk:
            raise DFPlannerError(
                f"{committed} committed actions do not fit into the new plan; commit fewer, or plan further"
            )
        if whole:
            kept = self._committed(previous, elapsed, whole * self.spec.chunk)
            codes = self.tokenizer.encode_actions(kept.unflatten(1, (whole, self.spec.chunk))).repeat(
                s.candidates, 1, 1
            )
            r.x[:, first : first + whole, self.spec.obs_dim :] = codes
            start[first : first + whole, 1] = 0
        r.matrix = matrices.warm(r.matrix, start)

    def _committed(self, previous: Plan, elapsed: int, n: int) -> Tensor:
        """The n actions (B, n, act) of a plan from ``elapsed`` on."""
        known = self.spec.chunk * int(np.cumprod(previous.levels[0, 1:, 1] == 0).sum())
        if elapsed < 0 or elapsed + n > known:
            raise DFPlannerError(
                f"{n} actions from step {elapsed} on are said to be committed, but the previous plan holds {known}; "
                "plan more action_chunks"
            )
        return torch.from_numpy(previous.actions[:, elapsed : elapsed + n]).to(self.device)

    def _guidance(self, objective: Objective | None, s: PlannerSettings, r: _Request) -> Guidance | None:
        terms = (
            [(w, t) for w, t in objective.terms if not (isinstance(t, ReachGoal) and t.how != "guidance")]
            if objective
            else []
        )
        if not terms or s.guidance == 0:
            return None

        def score(x0: Tensor) -> Tensor:
            states, actions = self._decode(x0[:, r.context :])
            return torch.stack([w * t(states, actions) for w, t in terms]).sum(0)

        return Guidance(score, s.guidance, samples=s.samples, near=s.near, best=s.best)

    def _continue(
        self,
        tokens: Tensor,
        levels: Matrix,
        horizon: int,
        objective: Objective | None,
        sampler: Sampler,
        s: PlannerSettings,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Matrix]:
        """Rolls past the trained horizon: the last few tokens become the context of a fresh window."""
        keep = min(s.overlap, self.spec.horizon - 1, tokens.shape[1])
        s = replace(s, candidates=1, action_chunks=max(0, s.action_chunks - tokens.shape[1] + 1))
        seen = self.tokenizer.decode_obs(tokens[:, -keep:, : self.spec.obs_dim])
        more = min(horizon - tokens.shape[1] + 1, self.spec.horizon - keep + 1)
        r = self._request(seen, objective, more, 0, s, generator)
        x, calls = sampler(r.x, r.matrix, guidance=self._guidance(objective, s, r), eta=s.eta, generator=generator)
        self.calls += calls
        return torch.cat([tokens, x[:, 1 + keep :]], 1), np.concatenate([levels, r.matrix[-1, 1 + keep :]])

    def _decode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, C) to states (B, T, obs) and chunks (B, T-1, chunk, act)."""
        d = self.spec.obs_dim
        return self.tokenizer.decode_obs(tokens[..., :d]), self.tokenizer.decode_actions(tokens[:, 1:, d:])

    def _states(self, tokens: Tensor) -> Array:
        return self.tokenizer.decode_obs(tokens[..., : self.spec.obs_dim]).cpu().numpy()

    def _plan(
        self,
        tokens: Tensor,
        levels: Matrix,
        objective: Objective | None,
        previous: Plan | None,
        elapsed: int,
        committed: int,
        trace: tuple[tuple[Array, Matrix], ...],
    ) -> Plan:
        with torch.no_grad():
            states, chunks = self._decode(tokens)
            known = torch.from_numpy(levels[1:, 1] == 0).to(self.device)
            chunks = torch.where(known[None, :, None, None], chunks, torch.zeros_like(chunks))
            score = objective(states, chunks) if objective else torch.zeros(len(states))
        actions = chunks.flatten(1, 2).cpu().numpy()
        if previous is not None and committed:
            actions[:, :committed] = self._committed(previous, elapsed, committed).cpu().numpy()
        if not np.isfinite(actions).all() or not torch.isfinite(states).all():
            raise DFPlannerError(
                "the plan came out with numbers that are not finite; lower the guidance, or check the checkpoint"
            )
        return Plan(
            states.cpu().numpy(),
            actions,
            np.repeat(levels[None], len(states), 0),
            score.cpu().numpy(),
            self.spec.chunk,
            self.spec.dt_s,
            tokens.cpu().numpy(),
            trace,
        )
