"""A learned inverse dynamics: which chunk of actions leads from one observation to the next planned one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dfplanner.data.tokens import Tokenizer
from dfplanner.data.windows import Windows
from dfplanner.types import Array, TokenSpec


class InverseDynamics(nn.Module):
    """(observation, next observation), both standardised (B, obs), to an action code (B, act_code)."""

    def __init__(self, spec: TokenSpec, width: int = 256) -> None:
        super().__init__()
        self.width = width
        self.net = nn.Sequential(
            nn.Linear(2 * spec.obs_dim, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, spec.act_code),
        )

    def forward(self, now: Tensor, then: Tensor) -> Tensor:
        return self.net(torch.cat([now, then - now], -1))

    @torch.no_grad()
    def chunk(self, tokenizer: Tokenizer, now: Array, then: Array) -> Array:
        """Actions (B, chunk, act) between observations (B, obs) in the environment's units."""
        a, b = (tokenizer.encode_obs(torch.from_numpy(np.asarray(x, np.float32))) for x in (now, then))
        return tokenizer.decode_actions(self(a, b)).numpy()


def fit_inverse(
    windows: Windows, tokenizer: Tokenizer, seed: int, steps: int = 2000, batch: int = 64
) -> InverseDynamics:
    """Least squares over the data's own transitions; the same seed gives the same weights."""
    spec = windows.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InverseDynamics(spec)
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        states, chunks, *_ = windows.draw(batch, np.random.default_rng([seed, 99, step]))
        obs = tokenizer.encode_obs(states)
        loss = (model(obs[:, :-1], obs[:, 1:]) - tokenizer.encode_actions(chunks)).square().mean()
        opt.zero_grad()
        loss.backward()
        for group in opt.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        opt.step()
    return model.requires_grad_(False)
