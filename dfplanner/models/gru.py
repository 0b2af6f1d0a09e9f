"""The paper's own form: a recurrent network, causal by construction (Chen et al. 2024, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfplanner.models.embed import TokenEmbed
from dfplanner.types import TokenSpec


class GRU(nn.Module):
    """model(x (B, T, C), levels (B, T, P) int) -> (B, T, C); same call as the transformer."""

    causal = True

    def __init__(
        self, spec: TokenSpec, levels: int, width: int, layers: int, octaves: int, period: float, relative: int = 0
    ) -> None:
        super().__init__()
        self.embed = TokenEmbed(spec, width, levels, octaves, period, relative)
        self.gru = nn.GRU(width, width, layers, batch_first=True)
        self.mix = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 2 * width), nn.SiLU())
        self.head = nn.Linear(2 * width, spec.width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        e = self.embed(x, levels)
        h, _ = self.gru(e)
        # the token itself skips the recurrence, so that denoising need not squeeze through the memory
        return self.head(self.mix(torch.cat([h, e], -1)))
