"""Success rates as others printed them, to stand beside ours. They were not run here.

Their protocols differ (training data, episodes a task, whether noise is added); ``source`` says what is known of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dfplanner_envs.ogbench_maze import ogbench_size


class Published(NamedTuple):
    """A method's success rates in per cent, and where they are from."""

    method: str
    medium: float
    large: float
    giant: float
    source: str


_MCTD = "Yoon et al. 2025, Monte Carlo Tree Diffusion (arXiv:2502.07202)"
OGBENCH = (
    Published("Diffusion Forcing", 82, 60, 52, "as printed with OGBench's stock noise"),
    Published("Diffusion Forcing, in MCTD", 65, 74, 50, f"{_MCTD}; its authors' protocol"),
    Published("Diffuser", 95, 99, 92, "as printed, inpainting"),
    Published("HorizonFlow", 100, 99.8, 97.1, "as printed by its authors"),
    Published("MCTD", 100, 98, 100, f"{_MCTD}; 59 to 264 s a plan"),
    Published("Fast-MCTD", 100, 80, 100, "as printed by its authors; 2.4 to 4.1 s a plan"),
)
"""pointmaze-{medium,large,giant}-navigate-v0: success rates over the five tasks."""


def published_runs(env_id: str, action_noise: float = 0.0) -> list[dict[str, Any]]:
    """What others printed for an environment, as runs for its table; none where none did, or under our own noise."""
    size = ogbench_size(env_id)
    if size is None or action_noise:
        return []
    return [
        {
            "env": env_id,
            "policy": p.method,
            "published": p.source,
            "success_rate": {"mean": getattr(p, size) / 100, "lo": None, "hi": None, "n": None},
        }
        for p in OGBENCH
    ]
