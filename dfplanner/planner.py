"""From what was seen and what is wanted to a plan: history + objective (+ last plan) -> Plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplanner.checkpoint import Checkpoint
from dfplanner.commitment import Elapsed, begin_after, begin_with, check_foreseen, check_previous
from dfplanner.guidance import Objective
from dfplanner.matrices import Matrix
from dfplanner.models.build import Denoiser
from dfplanner.noise import Generators
from dfplanner.problem import Request, checked_history, checked_horizon, rest
from dfplanner.request import new_request
from dfplanner.sampler import Guidance, Sampler
from dfplanner.settings import PlannerSettings
from dfplanner.types import Array, DFPlannerError, Plan
from dfplanner.warm import warm_start


class Planner:
    """A checkpoint that plans. Everything a plan depends on is an argument of ``plan``."""

    def __init__(self, checkpoint: Checkpoint, settings: PlannerSettings | None = None) -> None:
        self.checkpoint, self.settings = checkpoint, settings or PlannerSettings()
        self.spec, self.tokenizer, self.schedule = checkpoint.spec, checkpoint.tokenizer, checkpoint.schedule
        self.device = self.tokenizer.obs_mean.device
        self.parts = torch.from_numpy(self.tokenizer.part_of).to(self.device)
        self._code = {name: value.cpu().numpy() for name, value in self.tokenizer.stats().items()}
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
        generator: Generators = None,
        *,
        elapsed: Elapsed = 0,
        foreseen: Array | NDArray[np.float64] | None = None,
        trust: int = 0,
        settings: PlannerSettings | None = None,
        trace: bool = False,
    ) -> Plan:
        """Plans for a batch of B problems.

        history (B, obs): the present; or (B, H, obs): observations one chunk apart, the present last. ``previous``,
        with the ``elapsed`` environment steps since it began (one number, or one each), warm-starts; its next
        ``committed`` actions are the new plan's first. With ``foreseen`` (B, obs), the observation they will lead to,
        the plan goes on from there (``Plan.lead``). Without, whole chunks of them are held at level 0, and the model
        says where they lead; of a chunk that is committed in part the model knows nothing. ``trust``: the observations'
        noise level, 0 if exact. ``generator``: one for the batch, or one each. Raises DFPlannerError on what it cannot
        use.
        """
        s = settings or self.settings
        horizon = checked_horizon(self.spec, s, trust, self.schedule.levels)
        seen = torch.from_numpy(checked_history(self.spec, history)).to(self.device)
        check_previous(len(seen), previous, elapsed, committed)
        if foreseen is not None:
            previous = check_foreseen(previous, committed)
            known, since = {"trust": trust, "settings": settings, "trace": trace}, elapsed + committed
            plan = self.plan(foreseen, objective, previous, 0, generator, elapsed=since, **known)
            return begin_after(plan, previous, elapsed, committed, self.spec, self._code)
        tokens = min(horizon, self.spec.horizon)
        r = new_request(self.checkpoint, seen.repeat(s.candidates, 1, 1), objective, tokens, trust, s, generator)
        if previous is not None:
            warm_start(r, self.checkpoint, previous, elapsed, committed, s, generator)
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
        self,
        x: Tensor,
        b: int,
        r: Request[Tensor],
        objective: Objective | None,
        previous: Plan | None,
        elapsed: Elapsed,
    ) -> Tensor:
        """Of the candidates (n·B, ...) for each problem, and the rest of the previous plan, the best by score."""
        if objective is None:
            raise DFPlannerError("choosing among candidate plans needs an objective; pass one, or set candidates to 1")
        if previous is not None:
            old = x[:b].clone()
            d, first = self.spec.obs_dim, r.context + 1
            body, fits = rest(self.spec, previous, elapsed, x.shape[1] - first)
            foreseen = torch.from_numpy(body).to(x)
            old[:, first : first + fits, :d] = foreseen
            old[:, first + fits :, :d] = foreseen[:, -1:] if fits else old[:, r.context : first, :d]
            held = torch.from_numpy(r.matrix[0, :, 0] == 0).to(self.device)  # a goal at the last token
            old[:, held, :d] = x[:b, held, :d]
            x = torch.cat([x, old])
        states, chunks = self._decode(x[:, r.context :])
        best = objective(states, chunks).unflatten(0, (-1, b)).argmax(0)
        return x.unflatten(0, (-1, b))[best, torch.arange(b, device=x.device)]

    def _guidance(self, objective: Objective | None, s: PlannerSettings, r: Request[Tensor]) -> Guidance | None:
        terms = [(w, t) for w, t in objective.terms if t.guides] if objective else []
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
        generator: Generators,
    ) -> tuple[Tensor, Matrix]:
        """Rolls past the trained horizon: the last few tokens become the context of a fresh window."""
        keep = min(s.overlap, self.spec.horizon - 1, tokens.shape[1])
        s = replace(s, candidates=1, action_chunks=max(0, s.action_chunks - tokens.shape[1] + 1))
        seen = self.tokenizer.decode_obs(tokens[:, -keep:, : self.spec.obs_dim])
        more = min(horizon - tokens.shape[1] + 1, self.spec.horizon - keep + 1)
        r = new_request(self.checkpoint, seen, objective, more, 0, s, generator)
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
        elapsed: Elapsed,
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
            begin_with(actions, int(known.sum()), previous, elapsed, committed, self.spec, self._code)
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
