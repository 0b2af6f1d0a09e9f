"""Our Maze2D against D4RL's own code: its maps, model, resets, steps, rewards, goals, horizons and scores.

Needs the package d4rl 1.1 on disk and nothing that it depends on (``pip install --no-deps d4rl==1.1``): its
files are loaded without its ``__init__``, with a stand-in for the parts of gym 0.24 and mujoco_py they use.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from dfplanner_envs.maze2d import Maze2DEnv
from dfplanner_envs.mazes import MAZES, load_model

SPEC = importlib.util.find_spec("d4rl")
pytestmark = pytest.mark.skipif(SPEC is None, reason="d4rl is not installed: pip install --no-deps d4rl==1.1")
mj: Any = mujoco


class Generator(np.random.Generator):
    """gym 0.24's generator: numpy's, with the old name of one method."""

    def randn(self, *size: int) -> Any:
        return self.standard_normal(size)


class Model:
    """mujoco_py's model: MuJoCo's, with one method of its own; contacts as in the MuJoCo of its days."""

    def __init__(self, path: str) -> None:
        xml = Path(path).read_text().replace('coordinate="local"', "")  # MuJoCo knows no other any more
        xml = xml.replace('margin="0.002"', 'margin="0.001"')  # the larger of two counted, now their sum does
        self.bare = mj.MjModel.from_xml_string(xml)
        self.bare.body_invweight0[:, 0] *= 2 / 3  # a mean over three axes, now over those that move

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    def site_name2id(self, name: str) -> int:
        return mj.mj_name2id(self.bare, mj.mjtObj.mjOBJ_SITE, name)


class MujocoEnv:
    """What gym.envs.mujoco.MujocoEnv does with mujoco_py."""

    def __init__(self, model_path: str, frame_skip: int) -> None:
        self.model, self.frame_skip = Model(model_path), frame_skip
        self.data = mj.MjData(self.model.bare)
        self.sim = SimpleNamespace(data=self.data, reset=lambda: mj.mj_resetData(self.model.bare, self.data))
        self.init_qpos, self.init_qvel = self.data.qpos.copy(), self.data.qvel.copy()
        self.observation_space = SimpleNamespace(dtype=np.float64)

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mj.mj_forward(self.model.bare, self.data)

    def do_simulation(self, ctrl: np.ndarray, frames: int) -> None:
        self.data.ctrl[:] = ctrl
        for _ in range(frames):
            mj.mj_step(self.model.bare, self.data)

    def reset(self, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            self.np_random = Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self.sim.reset()
        return self.reset_model()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def d4rl():
    """D4RL's modules ``infos`` and ``maze_model``, and what it registers: id -> arguments."""
    assert SPEC is not None and SPEC.submodule_search_locations
    root = Path(SPEC.submodule_search_locations[0])
    ids: dict[str, dict[str, Any]] = {}

    def module(name: str, **content: Any) -> ModuleType:
        sys.modules[name] = made = ModuleType(name)
        made.__dict__.update(content)
        return made

    def load(name: str, path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made

    before = dict(sys.modules)
    try:
        utils = module("gym.utils", EzPickle=type("EzPickle", (), {"__init__": lambda *_: None}), colorize=str)
        mujoco_env = module("gym.envs.mujoco.mujoco_env", MujocoEnv=MujocoEnv)
        module("gym.envs.mujoco", mujoco_env=mujoco_env)
        module("gym.envs.registration", register=lambda id, **kw: ids.update({id: kw}))
        module("gym.envs")
        module("gym", Env=object, Wrapper=type("Wrapper", (), {}), utils=utils)
        package = module("d4rl", __path__=[str(root)])
        package.offline_env = load("d4rl.offline_env", root / "offline_env.py")  # type: ignore[attr-defined]
        load("d4rl.pointmaze", root / "pointmaze" / "__init__.py")
        yield SimpleNamespace(
            infos=load("d4rl.infos", root / "infos.py"),
            maze_model=sys.modules["d4rl.pointmaze.maze_model"],
            ids=ids,
        )
    finally:
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("gym", "d4rl"):
                del sys.modules[name]
        sys.modules.update({k: v for k, v in before.items() if k.split(".")[0] in ("gym", "d4rl")})


def make(d4rl: Any, name: str, multi: bool = False) -> Any:
    """D4RL's environment as D4RL registers it; ``multi`` with the switch it has for new goals."""
    kwargs = d4rl.ids[f"maze2d-{name}-v1"]["kwargs"]
    return d4rl.maze_model.MazeEnv(**{**kwargs, "reset_target": multi})


@pytest.mark.parametrize("name", MAZES)
def test_maps_horizons_and_scores(d4rl, name):
    maze, theirs, env_id = MAZES[name], make(d4rl, name), f"maze2d-{name}-v1"
    assert theirs.str_maze_spec.split("\\") == list(maze.rows)
    assert theirs.empty_and_goal_locations == maze.free_cells
    assert theirs.get_target() == maze.goal
    assert d4rl.ids[env_id]["max_episode_steps"] == maze.horizon
    assert (d4rl.infos.REF_MIN_SCORE[env_id], d4rl.infos.REF_MAX_SCORE[env_id]) == (
        maze.min_score,
        maze.max_score,
    )
    ours = Maze2DEnv(name)
    for ret in (0.0, 12.0, 250.0):
        assert ours.get_normalized_score(ret) == pytest.approx(100 * theirs.get_normalized_score(ret), abs=1e-12)


@pytest.mark.parametrize("name", MAZES)
def test_the_model_is_theirs(d4rl, name):
    """Every number of the compiled model that physics uses."""
    ours, theirs = load_model(MAZES[name]), make(d4rl, name).model.bare
    fields = [
        f
        for f in dir(ours)
        if f.split("_")[0] in ("body", "geom", "jnt", "dof", "actuator") and isinstance(getattr(ours, f), np.ndarray)
    ]
    looks = {"geom_rgba", "geom_matid"}
    assert len(fields) > 80
    for field in set(fields) - looks:
        assert np.array_equal(getattr(ours, field), getattr(theirs, field)), field
    for field in ("timestep", "gravity", "iterations", "integrator", "solver", "tolerance", "cone"):
        assert np.array_equal(getattr(ours.opt, field), getattr(theirs.opt, field)), field


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("name", MAZES)
def test_episodes_are_the_same_to_the_bit(d4rl, name, multi):
    """Same seed, same actions: same start, velocity and goal, and the same observation and reward a step."""
    ours, theirs = Maze2DEnv(name, multi=multi), make(d4rl, name, multi)
    rng, hits, rewarded = np.random.default_rng(1), 0, 0.0
    for seed in range(12):
        obs, info = ours.reset(seed=seed)
        assert np.array_equal(obs, theirs.reset(seed=seed))
        if seed < 6:
            assert np.array_equal(info["goal"], theirs.get_target())
        else:  # by chance alone few would be near
            ours.goal = np.rint(obs[:2])
            theirs.set_target(ours.goal)
        for t in range(250):
            if t % 12 == 0:
                action = rng.uniform(-1.5, 1.5, 2)
            obs, reward, *_ = ours.step(action)
            wanted, wanted_reward, done, _ = theirs.step(action)
            assert np.array_equal(obs, wanted), (seed, t)
            assert reward == wanted_reward and not done
            hits += theirs.data.ncon > 1  # the floor is always touched
            rewarded += reward
    assert hits > 100 and rewarded > 10  # walls and goals were met


def test_later_resets_go_on_with_the_same_randomness(d4rl):
    ours, theirs = Maze2DEnv("large", multi=True), make(d4rl, "large", multi=True)
    for seed in (3, None, None):
        obs, info = ours.reset(seed=seed)
        assert np.array_equal(obs, theirs.reset(seed=seed)) and np.array_equal(info["goal"], theirs.get_target())
