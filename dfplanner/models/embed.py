"""What both models put in front: token features, position of the token, and the level of each of its parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dfplanner.types import TokenSpec


class TokenEmbed(nn.Module):
    """Tokens (B, T, C) with levels (B, T, P) to features (B, T, width); token 0 is the goal token.

    Positions also enter as sines and cosines at a few octaves, for walls are sharp and an MLP of raw coordinates is
    smooth (Tancik et al. 2020). ``relative``: so many octaves of the way from the goal token's position, too, for a
    difference of two tokens is coarse when only attention takes it.
    """

    pos_scale: Tensor
    """Units per normalised unit of the position; set with the data."""
    freq: Tensor
    level_freq: Tensor

    def __init__(
        self, spec: TokenSpec, width: int, levels: int, octaves: int, period: float, relative: int = 0
    ) -> None:
        super().__init__()
        self.pos = list(spec.pos)
        self.levels = levels
        self.register_buffer("pos_scale", torch.ones(len(spec.pos)))
        self.register_buffer("freq", 2 * math.pi / period * 2.0 ** torch.arange(max(octaves, relative)))
        self.octaves, self.relative = octaves, relative
        self.token = nn.Linear(spec.width + 2 * (octaves + relative) * len(spec.pos), width)
        self.place = nn.Parameter(0.02 * torch.randn(spec.horizon + 1, width))
        self.register_buffer("level_freq", torch.exp(torch.linspace(0, math.log(200.0), 16)))
        self.level = nn.ModuleList(
            nn.Sequential(nn.Linear(32, width // 2), nn.SiLU(), nn.Linear(width // 2, width)) for _ in range(spec.parts)
        )

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        p = x[..., self.pos] * self.pos_scale
        angle = (p.unsqueeze(-1) * self.freq[: self.octaves]).flatten(-2)
        if self.relative:
            to_goal = (p - p[:, :1]).unsqueeze(-1) * self.freq[: self.relative]
            angle = torch.cat([angle, to_goal.flatten(-2)], -1)
        h = self.token(torch.cat([x, angle.sin(), angle.cos()], -1)) + self.place[: x.shape[1]]
        phase = (levels.to(x.dtype) / self.levels).unsqueeze(-1) * self.level_freq
        wave = torch.cat([phase.sin(), phase.cos()], -1)
        for i, mlp in enumerate(self.level):
            h = h + mlp(wave[..., i, :])
        return h
