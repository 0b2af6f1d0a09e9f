"""How a plan is sampled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class PlannerSettings:
    """How a plan is sampled."""

    horizon: int | None = None
    """Tokens of a plan, the present one included; None: as trained. Longer ones are continued window by window."""
    scheme: str = "full-sequence"
    """How observations fall: full-sequence, autoregressive, pyramid, trapezoid, rolling."""
    scale: float = 0.5
    """The pyramid's and trapezoid's uncertainty scale (rows a token waits for the one before); rolling: the window."""
    steps: int = 2
    """Levels the observations fall through."""
    action_steps: int = 2
    """Levels the actions fall through, after the observations; 0: together with them."""
    action_chunks: int = 1
    """Chunks whose actions are denoised; the others' stay unknown (zero in the plan)."""
    eta: float = 0.0
    """0 DDIM, 1 DDPM."""
    guidance: float = 1.0
    """Strength of the objectives that guide."""
    samples: int = 1
    """Futures of Monte Carlo guidance."""
    near: int = 4
    """Tokens those futures share."""
    best: bool = True
    """Whether a token that comes near is taken from the best future; False: only the gradient pulls."""
    candidates: int = 1
    """Plans sampled for each problem, of which the objective's best is kept (and only its actions denoised)."""
    incumbent: bool = False
    """Whether the rest of the previous plan competes with them."""
    pace: float | None = None
    """Pace to condition on (standard deviations; low is fast); None: as it comes."""
    stabilise: int = 0
    """Level the model is told for what is clean."""
    warm_level: int = 700
    """Level to which a previous plan is re-noised."""
    overlap: int = 6
    """Tokens of context when a plan longer than trained is continued."""

    def __post_init__(self) -> None:
        least = {"action_steps": 0, "action_chunks": 0, "samples": 1, "near": 0, "candidates": 1, "overlap": 1}
        for name, low in {**least, "stabilise": 0, "warm_level": 0}.items():
            if getattr(self, name) < low:
                raise DFPlannerError(f"the planner's {name} is {getattr(self, name)}; expected at least {low}")


POLICY_SETTINGS = PlannerSettings(horizon=4, action_steps=3)
"""A few tokens ahead and the first chunk's actions: what a policy needs of a plan."""


def policy_settings(env: str) -> tuple[PlannerSettings, float]:
    """How a policy samples in an environment, and the chunks between its plans.

    Where the way forks the mean of a few evaluations is to stay, and each new plan may choose anew: in OGBench's mazes
    more evaluations decide, and a plan is followed beyond its first chunk.
    """
    if env.startswith("pointmaze-"):
        return replace(POLICY_SETTINGS, steps=8, action_chunks=2), 1.5
    return POLICY_SETTINGS, 0.5
