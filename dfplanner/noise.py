"""Noise for a batch of problems, from one generator or from one each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dfplanner.types import DFPlannerError

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for the batch (None: torch's own), or one for each of its B problems: then a problem's plan does not
depend on what is planned beside it.
"""


def draw(
    shape: Sequence[int], generators: Generators, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal noise of a shape (n·B, ...), in which problem j has the rows j, j + B, ...

    Raises DFPlannerError if the rows cannot be shared among the generators.
    """
    if generators is None or isinstance(generators, torch.Generator):
        return torch.randn(*shape, generator=generators, device=device, dtype=dtype)
    rows, *inner = shape
    if not generators or rows % len(generators):
        raise DFPlannerError(f"{len(generators)} generators came for {rows} rows of noise; give one for each problem")
    own = [torch.randn(rows // len(generators), *inner, generator=g, device=device, dtype=dtype) for g in generators]
    return torch.stack(own, 1).flatten(0, 1)
