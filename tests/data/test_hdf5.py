"""HDF5: our own files come back whole, D4RL's files are understood, and what is wrong is said."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dfplanner.data import Episodes, d4rl_cache, load_episodes, read_hdf5, write_hdf5
from dfplanner.types import DFPlannerError


def episodes(seed: int = 0, **meta: object) -> Episodes:
    rng = np.random.default_rng(seed)
    fields: dict[str, Any] = {
        "observations": rng.normal(size=(50, 4)),
        "actions": rng.uniform(-1, 1, size=(50, 2)),
        "goals": rng.normal(size=(50, 2)),
        "rewards": rng.integers(0, 2, size=50),
        "starts": np.array([0, 7, 8, 30]),
        "meta": {"maze": "umaze", "seed": seed, "stay": True, **meta},
        "arrival": np.array([3, -1, 10, 19]),
    }
    return Episodes(**fields)


def d4rl_file(path: Path, jump: int | None = None, marks: tuple[int, ...] = (), without: tuple[str, ...] = ()) -> Path:
    """A file such as D4RL's: one trajectory of 40 steps of 1 cm, a jump of 3 m before step ``jump``."""
    position = np.stack([np.arange(40) * 0.01 + 1, np.ones(40)], axis=1).astype(np.float32)
    if jump is not None:
        position[jump:, 0] += 3
    velocity = np.zeros((40, 2), np.float32)
    timeouts = np.zeros(40, bool)
    timeouts[list(marks)] = True
    arrays = {
        "observations": np.concatenate([position, velocity], axis=1),
        "actions": np.zeros((40, 2), np.float32),
        "rewards": np.zeros(40, np.float32),
        "terminals": np.zeros(40, bool),
        "timeouts": timeouts,
        "infos/goal": np.ones((40, 2), np.float32),
        "infos/qpos": position,
        "infos/qvel": velocity,
    }
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if name not in without:
                file.create_dataset(name, data=array, compression="gzip")
    return path


def same(a: Episodes, b: Episodes) -> None:
    for name in ("observations", "actions", "goals", "rewards", "starts", "arrival"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.meta == b.meta


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "new" / "data.hdf5", episodes())
    same(load_episodes(tmp_path / "new" / "data.hdf5"), episodes())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["data.hdf5"]


def test_same_episodes_same_bytes_and_others_not(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.hdf5" for i in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        write_hdf5(file, episodes(seed))
    first, second, other = (file.read_bytes() for file in files)
    assert first == second != other


def test_the_layout_is_d4rls(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", episodes())
    with h5py.File(tmp_path / "a.hdf5") as file:
        found = {
            name: np.asarray(file[name]) for name in ("observations", "actions", "rewards", "terminals", "timeouts")
        }
        infos = {name: np.asarray(file[f"infos/{name}"]) for name in ("goal", "qpos", "qvel")}
    assert {len(a) for a in (*found.values(), *infos.values())} == {50}
    assert np.flatnonzero(found["timeouts"]).tolist() == [6, 7, 29, 49]
    assert not found["terminals"].any() and found["terminals"].dtype == bool
    np.testing.assert_array_equal(np.c_[infos["qpos"], infos["qvel"]], found["observations"])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hdf5(tmp_path / "a.hdf5", episodes())
    before = (tmp_path / "a.hdf5").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(DFPlannerError, match=r"could not be written .*no space left"):
        write_hdf5(tmp_path / "a.hdf5", episodes(1))
    assert (tmp_path / "a.hdf5").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_d4rls_single_trajectory_stays_one(tmp_path: Path) -> None:
    read = read_hdf5(d4rl_file(tmp_path / "maze2d-umaze-sparse-v1.hdf5", marks=(9, 20)))
    assert read.starts.tolist() == [0] and read.steps == 40
    assert read.meta["env"] == "maze2d-umaze-sparse-v1"


def test_d4rls_resets_split(tmp_path: Path) -> None:
    assert read_hdf5(d4rl_file(tmp_path / "a.hdf5", jump=21, marks=(9, 20, 39))).starts.tolist() == [0, 21]


def test_files_of_other_tasks_split_at_every_mark(tmp_path: Path) -> None:
    file = d4rl_file(tmp_path / "a.hdf5", marks=(9, 20), without=("infos/qpos", "infos/goal", "infos/qvel"))
    read = read_hdf5(file)
    assert read.starts.tolist() == [0, 10, 21]
    assert np.isnan(read.goals).all()


def test_joints_of_another_robot_are_no_ball_in_a_maze(tmp_path: Path) -> None:
    file = d4rl_file(tmp_path / "hopper.hdf5", marks=(9, 20), without=("infos/qpos",))
    with h5py.File(file, "a") as f:
        f["infos/qpos"] = np.zeros((40, 6))  # never jumps
    assert read_hdf5(file).starts.tolist() == [0, 10, 21]


def test_without_timeouts_what_comes_next_tells_where_an_episode_ended(tmp_path: Path) -> None:
    file = d4rl_file(tmp_path / "a.hdf5", jump=13, without=("timeouts", "infos/qpos"))
    with h5py.File(file, "a") as f:
        seen = np.asarray(f["observations"])
        following = np.append(seen[1:], seen[-1:], axis=0)
        following[12] = seen[12] + 0.01
        f["next_observations"] = following
    assert read_hdf5(file).starts.tolist() == [0, 13]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"observations": np.zeros((40, 8, 8, 3), np.uint8)}, r"observations .* \(40, 8, 8, 3\) \(images, it seems\)"),
        ({"actions": np.zeros(40, np.int64)}, r"actions .* \(40,\) \(discrete, it seems\)"),
        ({"actions": np.array([b"left"] * 40)[:, None]}, r"actions .* are of type \|S4; numbers are needed"),
        ({"observations/state": np.zeros((40, 4))}, r"observations in .* are a group of state"),
        ({"rewards": np.zeros(39)}, r"cannot be used: rewards have the shape \(39,\)"),
        ({"observations": np.full((40, 4), np.inf)}, "cannot be used: observations hold a value that is not finite"),
        ({"observations": np.zeros((0, 4)), "actions": np.zeros((0, 2)), "terminals": np.zeros(0)}, "set is empty"),
    ],
)
def test_what_is_no_rows_of_numbers_is_said(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    without = {name.split("/")[0] for name in arrays}
    without |= {"timeouts", "infos/qpos", "infos/goal", "infos/qvel"}
    file = d4rl_file(tmp_path / "a.hdf5", without=tuple(without))
    with h5py.File(file, "a") as f:
        for name, array in arrays.items():
            f[name] = array
    with pytest.raises(DFPlannerError, match=rf"a\.hdf5.*{sentence}|{sentence}"):
        read_hdf5(file)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(DFPlannerError, match=r"there is no file .*none\.hdf5"):
        load_episodes(tmp_path / "none.hdf5")
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(DFPlannerError, match="could not be read as HDF5"):
        load_episodes(tmp_path / "text.hdf5")
    with pytest.raises(DFPlannerError, match="lacks actions, rewards; "):
        read_hdf5(d4rl_file(tmp_path / "a.hdf5", without=("rewards", "actions")))
    with h5py.File(d4rl_file(tmp_path / "b.hdf5", without=("timeouts",)), "a") as file:
        file["timeouts"] = np.zeros(39, bool)
    with pytest.raises(DFPlannerError, match=r"timeouts in .* have the shape \(39,\), but there are 40"):
        read_hdf5(tmp_path / "b.hdf5")


@pytest.mark.parametrize("name", ["maze2d-umaze-v1", "maze2d-umaze", "maze2d-umaze-sparse-v1"])
def test_d4rls_cache_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    assert d4rl_cache(name) is None
    file = d4rl_file(tmp_path / "maze2d-umaze-sparse-v1.hdf5")
    assert d4rl_cache(name) == file
    assert load_episodes(name).steps == 40
    assert d4rl_cache("maze2d-large-v1") is None


def test_d4rls_cache_is_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".d4rl" / "datasets").mkdir(parents=True)
    file = d4rl_file(tmp_path / ".d4rl" / "datasets" / "maze2d-large-sparse-v1.hdf5")
    assert d4rl_cache("maze2d-large-v1") == file
