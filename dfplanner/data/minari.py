"""Episodes as Minari data sets (the extra `minari`).

Source of the format: https://minari.farama.org. A Minari episode has one observation more than it has
actions.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import Array, DFPlannerError

_META = "dfplanner_meta"


def _minari() -> ModuleType:
    try:
        import h5py  # noqa: F401  (Minari's default storage asks for it only when it is used)
        import minari
    except ImportError as e:
        raise DFPlannerError(
            "Minari is not installed; `pip install 'dfplanner[minari]'`, or use the format d4rl"
        ) from e
    return minari


def new_minari_path(dataset_id: str) -> Path:
    """Where ``dataset_id`` would be stored; raises DFPlannerError when it is no name, or taken."""
    _minari()
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        parse_dataset_id(dataset_id)
    except ValueError as e:
        raise DFPlannerError(
            f"{dataset_id!r} is no name for a Minari data set; give one such as maze2d/large-stay-v0 "
            f"(the folder is MINARI_DATASETS_PATH)"
        ) from e
    path = Path(get_dataset_path(dataset_id))
    if path.exists():
        raise DFPlannerError(f"a Minari data set {dataset_id} exists at {path}; choose another name or remove it")
    return path


def write_minari(dataset_id: str, episodes: Episodes, env_id: str) -> str:
    """Stores ``episodes`` as the Minari data set ``dataset_id`` of ``env_id``; returns its folder.

    The last action of each episode is left out, as what followed it is not known; goals go to
    ``infos["goal"]``.
    Raises DFPlannerError when the name is taken, when the environment is unknown or its spaces do not fit,
    or when an episode has a single step.
    """
    path = new_minari_path(dataset_id)
    observation_space, action_space = _spaces_of(env_id)
    for name, array, space in (
        ("observations", episodes.observations, observation_space),
        ("actions", episodes.actions, action_space),
    ):
        if not isinstance(space, gym.spaces.Box) or space.shape != array.shape[1:]:
            raise DFPlannerError(
                f"{name} of shape {array.shape[1:]} do not fit {env_id}, which has {space}; name the "
                f"environment that the episodes come from"
            )
    if (episodes.ends - episodes.starts).min() < 2:
        raise DFPlannerError("an episode has one step only; Minari needs an observation after the last action")
    minari = _minari()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for an author and an address
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                list(_buffers(episodes, observation_space.dtype, action_space.dtype)),
                env=env_id,
                algorithm_name=str(episodes.meta.get("controller", "")),
                description=f"Written by dfplanner: {json.dumps(episodes.meta, sort_keys=True)}",
            )
        dataset.storage.update_metadata({_META: json.dumps(episodes.meta, sort_keys=True)})
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return str(path)


def _spaces_of(env_id: str) -> tuple[gym.Space[Any], gym.Space[Any]]:
    try:
        env = gym.make(env_id)
    except gym.error.Error as e:
        raise DFPlannerError(
            f"Gymnasium does not know the environment {env_id!r}; import the package that registers it, "
            f"or write module:{env_id}"
        ) from e
    spaces = env.observation_space, env.action_space
    env.close()
    return spaces


def _buffers(episodes: Episodes, observed: Any, acted: Any) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for index, rows in enumerate(episodes.slices()):
        n = rows.stop - rows.start - 1
        arrival = None if episodes.arrival is None else {"arrival": int(episodes.arrival[index])}
        but_last = slice(rows.start, rows.stop - 1)
        yield EpisodeBuffer(
            id=index,
            options=arrival,
            observations=episodes.observations[rows].astype(observed),  # pyright: ignore[reportArgumentType]
            actions=episodes.actions[but_last].astype(acted),  # pyright: ignore[reportArgumentType]
            rewards=episodes.rewards[but_last],  # pyright: ignore[reportArgumentType]
            terminations=np.zeros(n, bool),  # pyright: ignore[reportArgumentType]
            truncations=np.arange(n) == n - 1,  # pyright: ignore[reportArgumentType]
            infos={"goal": episodes.goals[rows]},
        )


def read_minari(dataset: str | Path) -> Episodes:
    """The episodes of a Minari data set, given by its name (already downloaded) or its folder.

    Observations are a flat Box, or a Dict of ``observation`` and ``desired_goal`` as in
    ``D4RL/pointmaze/*``; actions are a flat Box. The observation after an episode's last action has no
    action and is left out.
    Raises DFPlannerError when it is not there, or when its spaces are others.
    """
    source = _open(dataset)
    observed, acts = source.observation_space, source.action_space
    of_goals = isinstance(observed, gym.spaces.Dict) and {"observation", "desired_goal"} <= set(observed.spaces)
    inner = observed["observation"] if of_goals else observed
    for name, space in (("observations", inner), ("actions", acts)):
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise DFPlannerError(
                f"{name} of {dataset} are {space}; a flat Box is needed (for observations also a "
                f"Dict of one and a desired_goal)"
            )
    parts: dict[str, list[Array]] = {"observations": [], "actions": [], "goals": [], "rewards": []}
    arrival: list[int] = []
    for episode in source.iterate_episodes():
        n = len(episode.rewards)
        seen, goals = episode.observations, (episode.infos or {}).get("goal")
        if of_goals:
            seen, goals = seen["observation"], seen["desired_goal"]
        goals = np.full((n, 2), np.nan) if goals is None else goals
        found = {"observations": seen, "actions": episode.actions, "goals": goals, "rewards": episode.rewards}
        for name, array in found.items():
            parts[name].append(np.asarray(array, np.float32)[:n])
    for facts in source.storage.get_episode_metadata(source.episode_indices):
        arrival.append(int(facts.get("options", {}).get("arrival", -2)))
    known = bool(arrival) and min(arrival) > -2
    length = np.array([len(rewards) for rewards in parts["rewards"]], np.int64)
    return Episodes(
        **{name: np.concatenate(arrays or [np.zeros((0, 0), np.float32)]) for name, arrays in parts.items()},
        starts=np.cumsum(length) - length,
        meta=_meta_of(source),
        arrival=_kept(np.array(arrival), length) if known else None,
    )


def _kept(arrival: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(arrival < length, arrival, -1)


def _meta_of(source: Any) -> dict[str, Any]:
    written = source.storage.metadata.get(_META)
    if written:
        return json.loads(written)
    env = source.env_spec.id if source.env_spec else source.id
    return {"env": env, "dataset": source.id, "controller": "minari", "stay": False}


def _open(dataset: str | Path) -> Any:
    minari = _minari()
    path = Path(dataset)
    try:
        if path.is_dir():
            return minari.MinariDataset(path / "data" if (path / "data").is_dir() else path)
        return minari.load_dataset(str(dataset))
    except (FileNotFoundError, ValueError, KeyError) as e:
        raise DFPlannerError(
            f"no Minari data set {str(dataset)!r} could be opened here ({e}); "
            f"`minari list local` names those that are, `minari download` fetches others"
        ) from e
