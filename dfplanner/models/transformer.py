"""A small transformer over tokens whose parts are each at their own noise level, causal or not."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dfplanner.models.embed import TokenEmbed
from dfplanner.types import TokenSpec


def norm(width: int) -> nn.LayerNorm:
    """Layer norm without a bias: fused on CPUs, where PyTorch's RMS norm costs five times as much."""
    return nn.LayerNorm(width, bias=False)


class Block(nn.Module):
    """Pre-norm attention and feed-forward; queries and keys are normalised (Dehghani et al. 2023)."""

    def __init__(self, width: int, heads: int, ff: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = norm(width), norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.qnorm, self.knorm = norm(width // heads), norm(width // heads)
        self.up, self.down = nn.Linear(width, ff, bias=False), nn.Linear(ff, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        b, t, w = h.shape
        q, k, v = self.qkv(self.norm1(h)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(self.qnorm(q), self.knorm(k), v, is_causal=self.causal)
        h = h + self.out(a.transpose(1, 2).reshape(b, t, w))
        return h + self.down(F.silu(self.up(self.norm2(h))))


class Transformer(nn.Module):
    """model(x (B, T, C), levels (B, T, P) int) -> (B, T, C), T at most horizon + 1. Causal: token t sees tokens ≤ t."""

    def __init__(
        self,
        spec: TokenSpec,
        levels: int,
        width: int,
        layers: int,
        heads: int,
        ff: int,
        causal: bool,
        octaves: int,
        period: float,
        relative: int = 0,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.embed = TokenEmbed(spec, width, levels, octaves, period, relative)
        self.blocks = nn.ModuleList(Block(width, heads, ff, causal) for _ in range(layers))
        self.norm = norm(width)
        self.head = nn.Linear(width, spec.width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        h = self.embed(x, levels)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))
