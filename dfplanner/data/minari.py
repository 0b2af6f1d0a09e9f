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
Observed = NDArray[Any] | dict[str, NDArray[Any]]


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

    The last action of each episode is left out, as what followed it is not known. Goals go where the environment has
    them: into its observations, if these are a Dict of observation, achieved_goal and desired_goal, or else to
    ``infos["goal"]``.
    Raises DFPlannerError when the name is taken, when the environment is unknown or its spaces do not fit, when its
    observations hold a goal and the episodes have none, or when an episode has a single step.
    """
    path = new_minari_path(dataset_id)
    observation_space, action_space = _spaces_of(env_id)
    seen = _as_observed(episodes, observation_space)
    fits = {"observations": (episodes.observations, seen is not None, observation_space)}
    fits["actions"] = (episodes.actions, _fits(action_space, episodes.actions), action_space)
    for name, (array, fit, space) in fits.items():
        if not fit:
            raise DFPlannerError(
                f"{name} of shape {array.shape[1:]} do not fit {env_id}, which has {space}; name the "
                f"environment that the episodes come from"
            )
    assert seen is not None
    if isinstance(seen, dict) and np.isnan(seen["desired_goal"]).any():
        raise DFPlannerError(
            f"the observations of {env_id} hold a goal, but the episodes have none; write them in the format d4rl"
        )
    if (episodes.ends - episodes.starts).min() < 2:
        raise DFPlannerError("an episode has one step only; Minari needs an observation after the last action")
    minari = _minari()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for an author and an address
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                list(_buffers(episodes, seen, action_space.dtype)),
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


def _fits(space: gym.Space[Any], array: NDArray[Any]) -> bool:
    return isinstance(space, gym.spaces.Box) and space.shape == array.shape[1:]


def _as_observed(episodes: Episodes, space: gym.Space[Any]) -> Observed | None:
    """The observations of all steps as the environment has them, an array or a Dict's arrays; None: they do not fit."""
    if _fits(space, episodes.observations):
        return episodes.observations.astype(space.dtype)
    if not isinstance(space, gym.spaces.Dict):
        return None
    pos = list(episodes.meta.get("pos", (0, 1)))
    parts = {
        "observation": episodes.observations,
        "achieved_goal": episodes.observations[:, pos],
        "desired_goal": episodes.goals,
    }
    if set(space.spaces) != set(parts) or not all(_fits(space[k], v) for k, v in parts.items()):
        return None
    return {k: v.astype(space[k].dtype) for k, v in parts.items()}


def _buffers(episodes: Episodes, seen: Observed, acted: Any) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for index, rows in enumerate(episodes.slices()):
        n = rows.stop - rows.start - 1
        arrival = None if episodes.arrival is None else {"arrival": int(episodes.arrival[index])}
        but_last = slice(rows.start, rows.stop - 1)
        yield EpisodeBuffer(
            id=index,
            options=arrival,
            observations={k: v[rows] for k, v in seen.items()} if isinstance(seen, dict) else seen[rows],  # pyright: ignore
            actions=episodes.actions[but_last].astype(acted),  # pyright: ignore[reportArgumentType]
            rewards=episodes.rewards[but_last],  # pyright: ignore[reportArgumentType]
            terminations=np.zeros(n, bool),  # pyright: ignore[reportArgumentType]
            truncations=np.arange(n) == n - 1,  # pyright: ignore[reportArgumentType]
            infos={"goal": episodes.goals[rows]},
        )


def read_minari(dataset: str | Path) -> Episodes:
    """The episodes of a Minari data set, given by its name (already downloaded) or its folder.

    Observations are a Box of numbers, or a Dict of ``observation``, ``desired_goal`` and mostly ``achieved_goal`` as
    in ``D4RL/pointmaze/*``; actions are a Box. The observation after an episode's last action has no action and is
    left out. ``meta["pos"]`` says which numbers of the observation the achieved goal is; where it is none of them it
    is put in front.
    Raises DFPlannerError when the data set is not there, or when its spaces are others.
    """
    source = _open(dataset)
    observed = source.observation_space
    if isinstance(observed, gym.spaces.Dict):
        keys = ("observation", "achieved_goal", "desired_goal")
        if not {"observation", "desired_goal"} <= set(observed.spaces):
            raise DFPlannerError(
                f"observations of {dataset} are a Dict of {', '.join(observed.spaces)}; a Box of numbers is needed, "
                "or a Dict with an observation and a desired_goal"
            )
        spaces = {f"{key} in observations": observed[key] for key in keys if key in observed.spaces}
    else:
        spaces = {"observations": observed}
    for name, space in {**spaces, "actions": source.action_space}.items():
        _check_numbers(name, space, dataset)
    parts: dict[str, list[Array]] = {}
    for episode in source.iterate_episodes():
        if n := len(episode.rewards):
            for name, array in _found(episode, n).items():
                parts.setdefault(name, []).append(np.asarray(array, np.float32)[:n].reshape(n, -1))
    if not parts:
        raise DFPlannerError(f"the Minari data set {dataset} is empty; at least one step is needed")
    arrays = {name: np.concatenate(several) for name, several in parts.items()}
    length = np.array([len(rewards) for rewards in parts["rewards"]], np.int64)
    meta = _meta_of(source)
    if (achieved := arrays.pop("achieved", None)) is not None:
        arrays["observations"], pos = _placed(arrays["observations"], achieved)
        meta |= {} if pos == [0, 1] else {"pos": pos}
    arrays["rewards"] = arrays["rewards"].ravel()
    arrival = _arrival(source, length)
    try:
        return Episodes(**arrays, starts=np.cumsum(length) - length, meta=meta, arrival=arrival)
    except DFPlannerError as e:
        raise DFPlannerError(f"the Minari data set {dataset} cannot be used: {e}") from e


def _check_numbers(name: str, space: gym.Space[Any], dataset: str | Path) -> None:
    if not isinstance(space, gym.spaces.Box):
        raise DFPlannerError(f"{name} of {dataset} are {space}; a Box of numbers is needed")
    if space.dtype == np.uint8 and len(space.shape) > 1:
        raise DFPlannerError(f"{name} of {dataset} are images {space.shape}; a Box of numbers, a state, is needed")


def _found(episode: Any, n: int) -> dict[str, Any]:
    """An episode's arrays by the names that Episodes has for them, and ``achieved``, if it tells."""
    seen, goals, more = episode.observations, (episode.infos or {}).get("goal"), {}
    if isinstance(seen, dict):
        more = {"achieved": seen["achieved_goal"]} if "achieved_goal" in seen else {}
        seen, goals = seen["observation"], seen["desired_goal"]
    if goals is None or np.ndim(goals) != 2:
        goals = np.full((n, 2), np.nan)
    return {"observations": seen, "actions": episode.actions, "goals": goals, "rewards": episode.rewards, **more}


def _placed(observations: Array, achieved: Array) -> tuple[Array, list[int]]:
    """Observations that hold the achieved goal, and the indices at which they do."""
    pos: list[int] = []
    for goal in achieved.T:
        same = [j for j, o in enumerate(observations.T) if j not in pos and np.array_equal(o, goal)]
        if not same:
            return np.concatenate([achieved, observations], axis=1), list(range(achieved.shape[1]))
        pos.append(same[0])
    return observations, pos


def _arrival(source: Any, length: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The step of arrival that ``write_minari`` left with each episode; None: another's data set."""
    facts = source.storage.get_episode_metadata(source.episode_indices)
    arrival = np.array([int((f.get("options") or {}).get("arrival", -2)) for f in facts], np.int64)
    return _kept(arrival, length) if len(arrival) == len(length) and arrival.min() > -2 else None


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
    except ImportError as e:
        raise DFPlannerError(f"the Minari data set {dataset} needs a package that is absent ({e}); install it") from e
    except (OSError, ValueError, KeyError) as e:
        raise DFPlannerError(
            f"no Minari data set {str(dataset)!r} could be opened here ({e}); "
            f"`minari list local` names those that are, `minari download` fetches others"
        ) from e
