"""Observations and action chunks to tokens and back: the normaliser and the action code, fitted on data."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfplanner.types import Array, DFPlannerError, TokenSpec

_STATS = ("obs_mean", "obs_std", "act_mean", "act_basis", "act_scale")


class Tokenizer(nn.Module):
    """Maps between the environment's units and tokens (B, T, width).

    Observations are standardised. A chunk of actions becomes its first ``act_code`` principal components, each divided
    by the square root of its deviation (half-way to white: no component drowns, none is blown up).
    """

    obs_mean: Tensor
    obs_std: Tensor
    act_mean: Tensor
    act_basis: Tensor
    act_scale: Tensor

    def __init__(self, spec: TokenSpec, stats: dict[str, Array] | None = None) -> None:
        super().__init__()
        self.spec = spec
        flat = spec.chunk * spec.act_dim
        shapes = {
            "obs_mean": (spec.obs_dim,),
            "obs_std": (spec.obs_dim,),
            "act_mean": (flat,),
            "act_basis": (spec.act_code, flat),
            "act_scale": (spec.act_code,),
        }
        for name in _STATS:
            value = torch.zeros(shapes[name]) if stats is None else torch.from_numpy(stats[name]).float()
            if tuple(value.shape) != shapes[name]:
                raise DFPlannerError(f"{name} has shape {tuple(value.shape)}, expected {shapes[name]} for {spec}")
            self.register_buffer(name, value)

    @classmethod
    def fit(cls, spec: TokenSpec, observations: Array, chunks: Array) -> Tokenizer:
        """From sample observations (N, obs_dim) and action chunks (M, chunk, act_dim)."""
        flat = chunks.reshape(len(chunks), -1).astype(np.float64)
        if spec.act_code > flat.shape[1]:
            raise DFPlannerError(
                f"act_code {spec.act_code} exceeds the chunk's {flat.shape[1]} numbers; make it smaller"
            )
        mean = flat.mean(0)
        _, sing, basis = np.linalg.svd(flat - mean, full_matrices=False)
        std = sing[: spec.act_code] / np.sqrt(len(flat))
        basis = basis[: spec.act_code] * np.sign(basis[: spec.act_code].sum(1, keepdims=True) + 1e-12)
        half = np.sqrt(np.maximum(std, 1e-4))
        half *= max(np.sqrt(np.mean((std / half) ** 2)), 1e-3)  # so that the code has unit variance on average
        stats = {
            "obs_mean": observations.mean(0),
            "obs_std": np.maximum(observations.std(0), 1e-3),
            "act_mean": mean,
            "act_basis": basis,
            "act_scale": half,
        }
        return cls(spec, {k: np.asarray(v, np.float32) for k, v in stats.items()})

    def encode_obs(self, obs: Tensor) -> Tensor:
        """Standardised observations, any leading shape."""
        return (obs - self.obs_mean) / self.obs_std

    def decode_obs(self, code: Tensor) -> Tensor:
        """The inverse of ``encode_obs``."""
        return code * self.obs_std + self.obs_mean

    def encode_actions(self, actions: Tensor) -> Tensor:
        """Chunks (..., chunk, act_dim) to codes (..., act_code)."""
        return (actions.flatten(-2) - self.act_mean) @ self.act_basis.T / self.act_scale

    def decode_actions(self, code: Tensor) -> Tensor:
        """Codes (..., act_code) to chunks (..., chunk, act_dim)."""
        flat = (code * self.act_scale) @ self.act_basis + self.act_mean
        return flat.unflatten(-1, (self.spec.chunk, self.spec.act_dim))

    def goal_token(self, goal: Tensor, pace: Tensor | None = None) -> Tensor:
        """Goals (B, len(pos)) to goal tokens (B, width): the position; in place of actions, the pace (B, 2) wanted."""
        token = goal.new_zeros(goal.shape[0], self.spec.width)
        pos = list(self.spec.pos)
        token[:, pos] = (goal - self.obs_mean[pos]) / self.obs_std[pos]
        if pace is not None:
            token[:, self.spec.obs_dim : self.spec.obs_dim + 2] = pace
        return token

    def encode(self, states: Tensor, chunks: Tensor, goal: Tensor, pace: Tensor | None = None) -> Tensor:
        """States (B, T, obs), chunks (B, T-1, chunk, act), goals (B, g), pace (B, 2) to a sequence (B, T+1, width)."""
        first = chunks.new_zeros(chunks.shape[0], 1, self.spec.act_code)
        codes = torch.cat([first, self.encode_actions(chunks)], 1)
        body = torch.cat([self.encode_obs(states), codes], -1)
        return torch.cat([self.goal_token(goal, pace).unsqueeze(1), body], 1)

    @property
    def part_of(self) -> NDArray[np.int64]:
        """Which part each of the token's numbers belongs to: (width,) of 0 (observation) and 1 (actions)."""
        return np.repeat([0, 1], [self.spec.obs_dim, self.spec.act_code])

    def stats(self) -> dict[str, Tensor]:
        """The fitted arrays by name, for a checkpoint."""
        return {name: cast(Tensor, getattr(self, name)) for name in _STATS}
