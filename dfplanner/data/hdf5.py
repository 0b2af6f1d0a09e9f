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

    Episodes end where ``timeouts`` or ``terminals`` is true, or, in a file without ``timeouts``, where
    ``next_observations`` is not what comes next. D4RL's Maze2D files are one long trajectory in which such a mark may
    be a change of goal only: there (the ball's place is both in ``observations`` and ``infos/qpos``) an episode ends
    only where the ball jumps.
    Raises DFPlannerError when the file cannot be read, when it lacks observations, actions, rewards or terminals, or
    when these are not rows of numbers.
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

    observations, actions = _rows(file, "observations", path), _rows(file, "actions", path)
    goals, n = get("infos/goal"), len(observations)
    ours = _META in file.attrs
    marks = {k: get(k) for k in ("terminals", "timeouts")}
    following = get("next_observations")
    if marks["timeouts"] is None and np.shape(following) == observations.shape and n:
        marks["next_observations"] = np.append((following[:-1] != observations[1:]).any(1), True)
    ends = _ends(n, marks, path)
    if n > 1 and not ours and _is_maze2d(observations, get("infos/qpos")):
        jumps = np.abs(np.diff(observations[:, :2], axis=0)).max(axis=1) > _JUMP
        ends = ends[(ends == n) | jumps[np.minimum(ends, n - 1) - 1]]
    if goals is None or np.ndim(goals) != 2 or len(goals) != n:
        goals = np.full((n, 2), np.nan)
    meta = json.loads(str(file.attrs[_META])) if ours else {"env": path.stem, "controller": "d4rl", "stay": False}
    try:
        return Episodes(
            observations=observations,
            actions=actions,
            goals=goals,
            rewards=np.ravel(get("rewards")),
            starts=np.append(0, ends[:-1]),
            meta=meta,
            arrival=get("dfplanner/arrival"),
        )
    except DFPlannerError as e:
        raise DFPlannerError(f"{path} cannot be used: {e}") from e


def _rows(file: h5py.File, name: str, path: Path) -> Any:
    """A row of numbers for each step, (N, numbers)."""
    item = file[name]
    if not isinstance(item, h5py.Dataset):
        held = ", ".join(item) if isinstance(item, h5py.Group) else "something else"
        raise DFPlannerError(f"{name} in {path} are a group of {held}; one array (steps, numbers) is needed")
    if item.ndim != 2:
        why = " (images, it seems)" if item.ndim > 2 else " (discrete, it seems)" if item.dtype.kind in "iu" else ""
        raise DFPlannerError(f"{name} in {path} have the shape {item.shape}{why}; (steps, numbers) is needed")
    if item.dtype.kind not in "fiub":
        raise DFPlannerError(f"{name} in {path} are of type {item.dtype}; numbers are needed")
    return np.asarray(item)


def _is_maze2d(observations: NDArray[Any], position: Any) -> bool:
    """Whether these are a ball's x, y, vx, vy, and so says its ``infos/qpos``."""
    shape = (len(observations), 2)
    return observations.shape[1] == 4 and np.shape(position) == shape and np.allclose(position, observations[:, :2])


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
