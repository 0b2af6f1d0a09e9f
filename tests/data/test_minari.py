"""Minari: its own reader accepts what is written, what is written comes back, and what is wrong is said."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from dfplanner.data import Episodes, load_episodes, read_minari, write_minari
from dfplanner.types import DFPlannerError

minari = pytest.importorskip("minari", reason="Minari is not installed (the extra minari)")

import dfplanner_envs  # noqa: E402, F401  (registers the environments)

ENV = "dfplanner/Maze2D-UMaze-v0"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    return tmp_path


def episodes(starts: tuple[int, ...] = (0, 12, 20), arrival: Any = (4, 7, -1)) -> Episodes:
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "observations": rng.uniform(0, 3, size=(30, 4)),
        "actions": rng.uniform(-1, 1, size=(30, 2)),
        "goals": rng.uniform(1, 3, size=(30, 2)),
        "rewards": rng.integers(0, 2, size=30),
        "starts": np.array(starts),
        "meta": {"env": "maze2d-umaze", "controller": "waypoint-pd", "stay": True},
        "arrival": None if arrival is None else np.array(arrival),
    }
    return Episodes(**fields)


def test_all_but_each_last_step_comes_back() -> None:
    folder = write_minari("maze2d/umaze-v0", episodes(), ENV)
    kept = np.setdiff1d(np.arange(30), episodes().ends - 1)
    for read in (read_minari("maze2d/umaze-v0"), load_episodes("maze2d/umaze-v0"), load_episodes(folder)):
        for name in ("observations", "actions", "goals", "rewards"):
            np.testing.assert_array_equal(getattr(read, name), getattr(episodes(), name)[kept], err_msg=name)
        assert read.starts.tolist() == [0, 11, 18]
        assert read.arrival is not None and read.arrival.tolist() == [
            4,
            -1,
            -1,
        ]  # the second arrived at its last
        assert read.meta == episodes().meta


def test_minari_itself_accepts_it() -> None:
    write_minari("umaze-v0", episodes(arrival=None), ENV)
    dataset = minari.load_dataset("umaze-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 27)
    env = dataset.recover_environment()
    assert env.spec is not None and env.spec.id == ENV
    for episode in dataset.iterate_episodes():
        assert len(episode.observations) == len(episode.actions) + 1 == len(episode.infos["goal"])
        assert episode.truncations.tolist() == [False] * (len(episode.actions) - 1) + [True]
        assert all(o in dataset.observation_space for o in episode.observations)
        assert all(a in env.action_space for a in episode.actions)
    assert read_minari("umaze-v0").arrival is None


def box(*shape: int, dtype: Any = np.float64) -> Any:
    return gym.spaces.Box(0 if dtype == np.uint8 else -9, 9, shape, dtype)


def foreign(name: str, space: gym.Space[Any], observations: Any, actions: Any = None, acts: Any = None) -> None:
    buffer = minari.data_collector.EpisodeBuffer(
        observations=observations,
        actions=np.full((5, 2), 0.5, np.float32) if actions is None else actions,  # pyright: ignore
        rewards=np.ones(5),  # pyright: ignore[reportArgumentType]
        terminations=np.zeros(5, bool),  # pyright: ignore[reportArgumentType]
        truncations=np.zeros(5, bool),  # pyright: ignore[reportArgumentType]
    )
    acts = acts or gym.spaces.Box(-1, 1, (2,), np.float32)
    minari.create_dataset_from_buffers(name, [buffer], action_space=acts, observation_space=space)


def goal_dict(sizes: dict[str, int]) -> tuple[gym.Space[Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    return gym.spaces.Dict({k: box(n) for k, n in sizes.items()}), {
        k: rng.uniform(-9, 9, (6, n)) for k, n in sizes.items()
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pos", [(0, 1), (3, 1)])
def test_goals_in_the_observations_are_read(pos: tuple[int, int]) -> None:
    space, seen = goal_dict({"observation": 4, "desired_goal": 2, "achieved_goal": 2})
    seen["achieved_goal"] = seen["observation"][:, list(pos)]
    foreign("D4RL/pointmaze/umaze-v2", space, seen)
    read = load_episodes("D4RL/pointmaze/umaze-v2")
    np.testing.assert_array_equal(read.observations, seen["observation"][:5].astype(np.float32))
    np.testing.assert_array_equal(read.goals, seen["desired_goal"][:5].astype(np.float32))
    assert read.arrival is None and read.meta["env"] == "D4RL/pointmaze/umaze-v2"
    assert tuple(read.meta.get("pos", (0, 1))) == pos


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_achieved_goal_that_is_no_part_of_the_observation_is_put_in_front() -> None:
    space, seen = goal_dict({"observation": 4, "desired_goal": 3, "achieved_goal": 3})
    foreign("fetch-v0", space, seen)
    read = load_episodes("fetch-v0")
    both = np.concatenate([seen["achieved_goal"], seen["observation"]], axis=1)[:5]
    np.testing.assert_array_equal(read.observations, both.astype(np.float32))
    assert read.meta["pos"] == [0, 1, 2] and read.goals.shape == (5, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_boxes_of_any_shape_are_read_as_rows_of_numbers() -> None:
    seen = np.arange(36.0).reshape(6, 2, 3) / 9
    foreign("grid-v0", box(2, 3), seen, np.full(5, 0.5, np.float32), gym.spaces.Box(-1, 1, (), np.float32))
    read = load_episodes("grid-v0")
    np.testing.assert_array_equal(read.observations, seen[:5].reshape(5, 6).astype(np.float32))
    assert read.actions.shape == (5, 1) and np.isnan(read.goals).all()


NESTED = gym.spaces.Dict({"observation": gym.spaces.Dict({"arm": box(2)}), "desired_goal": box(2)})
UNREADABLE: dict[str, tuple[gym.Space[Any], Any, str]] = {
    "counts-v0": (
        gym.spaces.Discrete(9),
        np.arange(6),
        r"observations of counts-v0 are Discrete\(9\); a Box of numbers",
    ),
    "pixels-v0": (box(8, 8, 3, dtype=np.uint8), np.zeros((6, 8, 8, 3), np.uint8), r"pixels-v0 are images \(8, 8, 3\)"),
    "keys-v0": (gym.spaces.Dict({"arm": box(2)}), {"arm": np.zeros((6, 2))}, "keys-v0 are a Dict of arm; a Box"),
    "nested-v0": (
        NESTED,
        {"observation": {"arm": np.zeros((6, 2))}, "desired_goal": np.zeros((6, 2))},
        r"observation in observations of nested-v0 are Dict\('arm'",
    ),
    "nan-v0": (box(2), np.full((6, 2), np.nan), "nan-v0 cannot be used: observations hold a value that is not finite"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_said(name: str) -> None:
    space, seen, sentence = UNREADABLE[name]
    foreign(name, space, seen)
    with pytest.raises(DFPlannerError, match=sentence):
        read_minari(name)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_discrete_actions_are_said() -> None:
    foreign("buttons-v0", box(2), np.zeros((6, 2)), np.arange(5), gym.spaces.Discrete(5))
    with pytest.raises(DFPlannerError, match=r"actions of buttons-v0 are Discrete\(5\)"):
        read_minari("buttons-v0")


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(DFPlannerError, match="no Minari data set 'nothing-v0'"):
        read_minari("nothing-v0")
    with pytest.raises(DFPlannerError, match="'nothing-v0' is no file, no folder and nothing in D4RL's cache"):
        load_episodes("nothing-v0")


def test_what_cannot_be_written_is_said(root: Path) -> None:
    with pytest.raises(DFPlannerError, match="'a b' is no name for a Minari data set"):
        write_minari("a b", episodes(), ENV)
    with pytest.raises(DFPlannerError, match="does not know the environment 'dfplanner/None-v0'"):
        write_minari("umaze-v0", episodes(), "dfplanner/None-v0")
    with pytest.raises(DFPlannerError, match=r"observations of shape \(4,\) do not fit Pendulum-v1"):
        write_minari("umaze-v0", episodes(), "Pendulum-v1")
    with pytest.raises(DFPlannerError, match="one step only"):
        write_minari("umaze-v0", episodes(starts=(0, 1, 20)), ENV)
    assert not list(root.rglob("umaze-v0"))
    write_minari("umaze-v0", episodes(), ENV)
    with pytest.raises(DFPlannerError, match="exists at"):
        write_minari("umaze-v0", episodes(), ENV)
