"""Episodes in D4RL's HDF5 layout: what this package writes, and D4RL's own files.

Source of the layout: Fu et al. 2020, "D4RL" (arXiv:2004.07219).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError

_META = "dfplanner"
"""The attribute with our meta as JSON; a file without it is somebody else's."""
_JUMP = 0.25
"""Metres. D4RL may mark changes of goal as ends; the ball moves 6 cm a step at most: a jump is a reset."""


def write_hdf5(path: str | Path, episodes: Episodes) -> None:
    """Writes ``episodes`` in D4RL's layout, at once or not at all; the same episodes give the same bytes.

    Episodes end where ``timeouts`` is true. ``infos/qpos`` and ``infos/qvel`` are written when an
    observation is x, y, vx, vy, as in Maze2D. Raises DFPlannerError when ``path`` cannot be written.
    """
    path = Path(path)
    timeouts = np.zeros(episodes.steps, bool)
    timeouts[episodes.ends - 1] = True
    arrays: dict[str, NDArray[Any]] = {
        "observations": episodes.observations,
        "actions": episodes.actions,
        "rewards": episodes.rewards,
        "terminals": np.zeros(episodes.steps, bool),
        "timeouts": timeouts,
        "infos/goal": episodes.goals,
    }
    if episodes.observations.shape[1] == 4 and "maze" in episodes.meta:
        arrays["infos/qpos"], arrays["infos/qvel"] = np.split(episodes.observations, 2, axis=1)
    if episodes.arrival is not None:
        arrays["dfplanner/arrival"] = episodes.arrival
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            for name, array in arrays.items():
                # Level 1 halves the time that D4RL's level 4 takes, at a few per cent more bytes.
                file.create_dataset(name, data=array, compression="gzip", compression_opts=1, track_times=False)
            file.attrs[_META] = json.dumps(episodes.meta, sort_keys=True)
        os.replace(temporary, path)
    except OSError as e:
        raise DFPlannerError(f"{path} could not be written ({e}); choose a path that can be") from e
    finally:
        temporary.unlink(missing_ok=True)


def read_hdf5(path: str | Path) -> Episodes:
    """The episodes in a file of ours, or in one of D4RL's.

    Episodes end where ``timeouts`` or ``terminals`` is true. D4RL's Maze2D files are one long trajectory in
    which such a mark may be a change of goal only: there (``infos/qpos`` tells) an episode ends only where
    the ball jumps.
    Raises DFPlannerError when the file cannot be read, or lacks observations, actions, rewards or
    terminals.
    """
    path = Path(path)
    if not path.is_file():
        raise DFPlannerError(f"there is no file {path}; make one with `dfplanner collect`, or give D4RL's own file")
    try:
        with h5py.File(path, "r") as file:
            return _episodes(file, path)
    except OSError as e:
        raise DFPlannerError(f"{path} could not be read as HDF5 ({e}); is it complete?") from e


def _episodes(file: h5py.File, path: Path) -> Episodes:
    missing = [k for k in ("observations", "actions", "rewards", "terminals") if k not in file]
    if missing:
        raise DFPlannerError(f"{path} lacks {', '.join(missing)}; D4RL's layout is expected, it holds {sorted(file)}")

    def get(name: str) -> Any:
        return np.asarray(file[name]) if name in file else None

    observations, goals = get("observations"), get("infos/goal")
    n = len(observations)
    ours = _META in file.attrs
    ends = _ends(n, {k: get(k) for k in ("terminals", "timeouts")}, path)
    position = get("infos/qpos")
    if position is not None and len(position) == n > 1 and not ours:
        jumps = np.abs(np.diff(position, axis=0)).max(axis=1) > _JUMP
        ends = ends[(ends == n) | jumps[np.minimum(ends, n - 1) - 1]]
    if goals is None:
        goals = np.full((n, 2), np.nan)
    meta = json.loads(str(file.attrs[_META])) if ours else {"env": path.stem, "controller": "d4rl", "stay": False}
    return Episodes(
        observations=observations,
        actions=get("actions"),
        goals=goals,
        rewards=np.ravel(get("rewards")),
        starts=np.append(0, ends[:-1]),
        meta=meta,
        arrival=get("dfplanner/arrival"),
    )


def _ends(n: int, marks: dict[str, NDArray[Any] | None], path: Path) -> NDArray[np.int64]:
    """One past the last row of each episode of n steps."""
    over = np.zeros(n, bool)
    for name, mark in marks.items():
        if mark is None:
            continue
        if np.shape(mark) not in ((n,), (n, 1)):
            raise DFPlannerError(f"{name} in {path} have the shape {np.shape(mark)}, but there are {n} observations")
        over |= np.ravel(mark).astype(bool)
    if n:
        over[-1] = True
    return np.flatnonzero(over) + 1


def d4rl_cache(env_name: str) -> Path | None:
    """The file that D4RL itself has downloaded for ``env_name``, if it has.

    Looks in ``$D4RL_DATASET_DIR``, or else ``~/.d4rl/datasets``. The name may be D4RL's
    (``maze2d-umaze-v1``, whose file is the sparse one), the same without its version, or a file's stem
    (``maze2d-umaze-sparse-v1``).
    """
    folder = Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")
    maze = env_name.lower().removeprefix("maze2d-").removesuffix("-v1")
    files = [folder / f"{stem}.hdf5" for stem in (env_name, f"maze2d-{maze}-sparse-v1")]
    return next((file for file in files if file.is_file()), None)
