"""How fast a stretch of data reached its goal, compared with what its start lets one expect.

The pace is a part a plan can be conditioned on, two numbers: (z, 0) on the way, low z being fast; (0, 1) once arrived.
z is the residual of log(10 + steps to the goal) under a small regression from (observation, goal), in standard
deviations, so 0 is the data's usual pace from there.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfplanner.data.episodes import Episodes
from dfplanner.types import Array


def steps_to_arrival(episodes: Episodes) -> NDArray[np.int64]:
    """Steps from each row (N,) to its episode's arrival; -1 where the episode never arrives or has arrived."""
    arrival = np.full(len(episodes), -1) if episodes.arrival is None else episodes.arrival
    own = np.repeat(np.arange(len(episodes)), episodes.ends - episodes.starts)
    left = episodes.starts[own] + arrival[own] - np.arange(episodes.steps)
    return np.where((arrival[own] >= 0) & (left > 0), left, -1)


def fit_pace(episodes: Episodes, pos: tuple[int, ...], seed: int, steps: int = 1500, batch: int = 512) -> Array:
    """The pace (N, 2) of every row: NaN where nothing is known, that is where an episode never arrives."""
    left = steps_to_arrival(episodes)
    pace = np.full((episodes.steps, 2), np.nan, np.float32)
    rows = np.flatnonzero(left > 0)
    if episodes.arrival is None or len(rows) < batch:
        return pace
    rng = np.random.default_rng([seed, 77])
    mean, std = episodes.observations.mean(0), episodes.observations.std(0) + 1e-6

    def features(r: NDArray[np.int64]) -> Tensor:
        goal = (episodes.goals[r] - mean[list(pos)]) / std[list(pos)]
        obs = (episodes.observations[r] - mean) / std
        place = torch.from_numpy(np.concatenate([obs[:, list(pos)], goal], 1))
        waves = [f(place * w) for w in (1.0, 2.0, 4.0, 8.0) for f in (torch.sin, torch.cos)]
        return torch.cat([torch.from_numpy(np.concatenate([obs, goal], 1)), *waves], 1).float()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = features(rows[:1]).shape[1]
        net = nn.Sequential(nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    wanted = torch.from_numpy(np.log(10.0 + left[rows]).astype(np.float32))
    for step in range(steps):
        pick = rng.integers(0, len(rows), batch)
        loss = (net(features(rows[pick])).squeeze(1) - wanted[pick]).square().mean()
        opt.zero_grad()
        loss.backward()
        for group in opt.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        opt.step()
    with torch.no_grad():
        blocks = np.array_split(np.arange(len(rows)), max(1, len(rows) // 65536))
        residual = np.concatenate([(wanted[b] - net(features(rows[b])).squeeze(1)).numpy() for b in blocks])
    pace[rows, 0], pace[rows, 1] = residual / residual.std(), 0
    arrived = np.repeat(episodes.arrival >= 0, episodes.ends - episodes.starts) & (left < 0)
    pace[arrived] = (0, 1)
    return pace
