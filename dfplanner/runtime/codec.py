"""Between the environment's units and tokens, as ``dfplanner.data.tokens`` and ``models.inverse``, in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import Array, DFPlannerError, TokenSpec


class Codec:
    """The tokenizer's numbers and its maps; arrays are float32."""

    def __init__(self, spec: TokenSpec, stats: Mapping[str, Array]) -> None:
        self.spec, flat = spec, spec.chunk * spec.act_dim
        self.obs_mean, self.obs_std = stats["obs_mean"], stats["obs_std"]
        self.act_mean, self.act_basis, self.act_scale = stats["act_mean"], stats["act_basis"], stats["act_scale"]
        if self.obs_mean.shape != (spec.obs_dim,) or self.act_basis.shape != (spec.act_code, flat):
            raise DFPlannerError(
                f"statistics of shapes {self.obs_mean.shape} and {self.act_basis.shape} do not fit {spec}; export anew"
            )
        self.part_of: NDArray[np.int64] = np.repeat([0, 1], [spec.obs_dim, spec.act_code])

    def encode_obs(self, obs: Array) -> Array:
        """Standardised observations, any leading shape."""
        return (obs - self.obs_mean) / self.obs_std

    def decode_obs(self, code: Array) -> Array:
        """The inverse of ``encode_obs``."""
        return code * self.obs_std + self.obs_mean

    def encode_actions(self, actions: Array) -> Array:
        """Chunks (..., chunk, act_dim) to codes (..., act_code)."""
        flat = actions.reshape(*actions.shape[:-2], -1)
        code = (flat - self.act_mean) @ self.act_basis.T
        return np.divide(code, self.act_scale, dtype=np.float32)

    def decode_actions(self, code: Array) -> Array:
        """Codes (..., act_code) to chunks (..., chunk, act_dim)."""
        flat = np.add((code * self.act_scale) @ self.act_basis, self.act_mean, dtype=np.float32)
        return flat.reshape(*flat.shape[:-1], self.spec.chunk, self.spec.act_dim)

    def goal_token(self, goal: Array, pace: Array | None = None) -> Array:
        """Goals (B, len(pos)) to goal tokens (B, width); in place of actions, the pace (B, 2) wanted."""
        token = np.zeros((len(goal), self.spec.width), np.float32)
        pos = list(self.spec.pos)
        token[:, pos] = (goal - self.obs_mean[pos]) / self.obs_std[pos]
        if pace is not None:
            token[:, self.spec.obs_dim : self.spec.obs_dim + 2] = pace
        return token


class Inverse:
    """The learned inverse dynamics: three layers' weights and biases."""

    def __init__(self, layers: Sequence[Array]) -> None:
        self.layers = layers

    def chunk(self, tokenizer: Codec, now: Array, then: Array) -> Array:
        """Actions (B, chunk, act) between observations (B, obs) in the environment's units."""
        a, b = (tokenizer.encode_obs(np.asarray(x, np.float32)) for x in (now, then))
        h = np.concatenate([a, b - a], -1)
        for i in range(0, len(self.layers), 2):
            h = h / (1 + np.exp(-h)) if i else h  # SiLU between layers
            h = h @ self.layers[i].T + self.layers[i + 1]
        return tokenizer.decode_actions(h)
