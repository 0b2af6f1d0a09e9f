"""From a configuration to a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from dfplanner.models.gru import GRU
from dfplanner.models.transformer import Transformer
from dfplanner.types import DFPlannerError, TokenSpec


class Denoiser(Protocol):
    """Anything that maps tokens (B, T, C) at levels (B, T, P) to its prediction (B, T, C)."""

    causal: bool

    def __call__(self, x: Tensor, levels: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class ModelConfig:
    """The network: ``kind`` transformer or gru, its sizes, and whether a token may see later ones."""

    kind: Literal["transformer", "gru"] = "transformer"
    width: int = 128
    layers: int = 4
    heads: int = 4
    ff: int = 256
    causal: bool = True
    octaves: int = 5
    """Sines and cosines of the position, at this many octaves."""
    period: float = 16.0
    """Longest period of those, in the position's units."""
    relative: int = 0
    """The same of the way from the goal, at this many octaves; 0: none."""


def build_model(config: ModelConfig, spec: TokenSpec, levels: int) -> nn.Module:
    """A fresh network for tokens of this spec and a schedule with this many levels."""
    if config.width % config.heads:
        raise DFPlannerError(f"model width {config.width} cannot be split into {config.heads} heads; choose a multiple")
    if config.kind == "gru":
        if not config.causal:
            raise DFPlannerError("a GRU is causal by construction; take kind='transformer' for a non-causal model")
        return GRU(spec, levels, config.width, config.layers, config.octaves, config.period, config.relative)
    return Transformer(
        spec,
        levels,
        config.width,
        config.layers,
        config.heads,
        config.ff,
        config.causal,
        config.octaves,
        config.period,
        config.relative,
    )
