"""``dfplanner.sampler`` in numpy: denoise tokens along a scheduling matrix, without gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.matrices import Matrix
from dfplanner.runtime.file import OnnxCheckpoint
from dfplanner.types import Array, DFPlannerError

Noise = Callable[[tuple[int, ...]], Array]
"""Standard normal float32 numbers of a shape."""
Trace = Callable[[Array, Matrix], None]


def noise_from(generator: Any) -> Noise:
    """Noise of a np.random.Generator (None: a new one), of a function of the shape, or of a torch.Generator or several.

    These draw what the torch planner draws, in its order: the same seed is the same plan under either runtime.
    """
    if generator is None or isinstance(generator, np.random.Generator):
        rng = generator or np.random.default_rng()
        return lambda shape: rng.standard_normal(shape, dtype=np.float32)
    if callable(generator):
        return lambda shape: np.asarray(generator(shape), np.float32).reshape(shape)
    first: Any = generator[0] if isinstance(generator, list | tuple) and generator else generator
    if type(first).__module__.split(".")[0] == "torch":
        from dfplanner.noise import draw  # whoever has its generator has torch

        return lambda shape: draw(shape, generator, first.device).cpu().numpy()
    raise DFPlannerError(
        f"the generator is a {type(generator).__name__}; give a np.random.Generator, a torch.Generator or one for each "
        "problem, or a function from a shape to noise"
    )


def to_x0_eps(pred: Array, x: Array, alpha: Array, sigma: Array, kind: str) -> tuple[Array, Array]:
    """The clean sample and the noise that a model's output stands for, all shaped like x."""
    if kind == "v":
        x0, eps = alpha * x - sigma * pred, sigma * x + alpha * pred
    elif kind == "eps":
        x0, eps = (x - sigma * pred) / alpha.clip(1e-3), pred
    else:
        x0, eps = pred, np.where(sigma > 0, (x - alpha * pred) / sigma.clip(1e-12), 0)
    return x0.astype(np.float32), eps.astype(np.float32)


@dataclass(frozen=True)
class OnnxSampler:
    """The model and its schedule; ``stabilise``: the level the model is told instead of 0 for what is clean."""

    checkpoint: OnnxCheckpoint
    stabilise: int = 0

    def __post_init__(self) -> None:
        if self.stabilise > self.checkpoint.schedule.levels:
            raise DFPlannerError(
                f"the stabilisation level is {self.stabilise}; expected a noise level, 0 to "
                f"{self.checkpoint.schedule.levels}"
            )

    def predict(self, x: Array, levels: NDArray[np.int64]) -> tuple[Array, Array]:
        """x̂0 and ε̂ (B, T, C) of tokens at levels (T, P)."""
        c = self.checkpoint
        told = np.where(levels == 0, self.stabilise, levels)
        out = c.model(x, np.broadcast_to(told, (len(x), *told.shape)))
        alpha, sigma = c.schedule.rates(levels[:, c.tokenizer.part_of])
        return to_x0_eps(out, x, alpha, sigma, c.prediction)

    def step(
        self,
        x: Array,
        x0: Array,
        eps: Array,
        now: NDArray[np.int64],
        then: NDArray[np.int64],
        eta: float,
        noise: Noise,
    ) -> Array:
        """Moves x (B, T, C) from levels ``now`` (T, P) to ``then``; what does not change level stays as it is."""
        parts = self.checkpoint.tokenizer.part_of
        k, k2 = now[:, parts], then[:, parts]
        a2, s2 = self.checkpoint.schedule.rates(k2)
        if eta > 0:
            a, s = self.checkpoint.schedule.rates(k)
            spread = eta * (s2 / s.clip(1e-12)) * np.sqrt((1 - (a / a2.clip(1e-12)) ** 2).clip(0))
            new = a2 * x0 + np.sqrt((s2**2 - spread**2).clip(0)) * eps + spread * noise(x.shape)
        else:
            new = a2 * x0 + s2 * eps
        return np.where(k == k2, x, new).astype(np.float32)

    def __call__(
        self, x: Array, matrix: Matrix, *, eta: float, noise: Noise, trace: Trace | None = None
    ) -> tuple[Array, int]:
        """Denoises x (B, T, C), given at the levels of matrix[0], to those of matrix[-1]; also the model's calls."""
        moving = (np.diff(matrix, axis=0) != 0).any(-1)  # (M, T)
        for m, moves in enumerate(moving):
            # a causal model need not look past the last token that moves
            t = int(np.flatnonzero(moves)[-1]) + 1 if self.checkpoint.model.causal and moves.any() else x.shape[1]
            x0, eps = self.predict(x[:, :t], matrix[m, :t])
            new = self.step(x[:, :t], x0, eps, matrix[m, :t], matrix[m + 1, :t], eta, noise)
            x = np.concatenate([new, x[:, t:]], 1)
            if trace:
                trace(np.concatenate([x0, x[:, t:]], 1), matrix[m + 1])
        return x, len(moving)
