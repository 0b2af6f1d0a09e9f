"""Episodes: what they accept, how they are cut, and what they say."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfplanner.data import Episodes
from dfplanner.types import DFPlannerError


def fields(n: int = 6) -> dict[str, Any]:
    return {
        "observations": np.ones((n, 4)),
        "actions": np.zeros((n, 2)),
        "goals": np.full((n, 2), np.nan),
        "rewards": np.zeros(n),
        "starts": [0],
    }


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_slices_partition_the_rows(lengths: list[int]) -> None:
    n = sum(lengths)
    episodes = Episodes(**{**fields(n), "starts": np.cumsum(lengths) - lengths})
    assert [s.stop - s.start for s in episodes.slices()] == lengths
    assert (len(episodes), episodes.steps) == (len(lengths), n)
    assert np.concatenate([np.arange(n)[s] for s in episodes.slices()]).tolist() == list(range(n))


def test_arrays_become_float32_and_goals_may_be_unknown() -> None:
    episodes = Episodes(**fields())
    assert episodes.observations.dtype == episodes.goals.dtype == episodes.rewards.dtype == np.float32
    assert np.isnan(episodes.goals).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"observations": np.zeros((0, 4))}, "the data set is empty"),
        ({"actions": np.zeros((5, 2))}, r"actions have the shape \(5, 2\).*6 observations"),
        ({"rewards": np.zeros((6, 1))}, r"rewards have the shape \(6, 1\); 1 axes"),
        ({"observations": np.full((6, 4), np.nan)}, "observations hold a value that is not finite at row 0"),
        ({"actions": np.r_[np.zeros((3, 2)), np.full((3, 2), np.inf)]}, "actions .* at row 3"),
        ({"starts": [1, 3]}, "starts must rise from 0"),
        ({"starts": [0, 3, 3]}, "starts must rise from 0"),
        ({"starts": [0, 6]}, "starts must rise from 0"),
        ({"starts": []}, "starts must rise from 0"),
        ({"arrival": [1, 2]}, "arrival has the shape"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DFPlannerError, match=sentence):
        Episodes(**{**fields(), **change})


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_trajectories_become_episodes(lengths: list[int], last: bool, flat: bool) -> None:
    rng = np.random.default_rng(0)
    runs = [(rng.normal(size=(n + last, 3)), rng.normal(size=n if flat else (n, 1))) for n in lengths]
    goals = rng.normal(size=(len(lengths), 1))
    episodes = Episodes.from_trajectories(runs, goals, pos=(2,), dt_s=0.5)
    assert episodes.meta == {"pos": [2], "dt_s": 0.5}
    for rows, (seen, done), goal in zip(episodes.slices(), runs, goals, strict=True):
        np.testing.assert_allclose(episodes.observations[rows], seen[: len(done)], rtol=1e-6)
        np.testing.assert_allclose(episodes.actions[rows, 0], np.ravel(done), rtol=1e-6)
        np.testing.assert_allclose(episodes.goals[rows], np.tile(goal, (len(done), 1)), rtol=1e-6)
    assert np.isnan(Episodes.from_trajectories(runs).goals).all()


@pytest.mark.parametrize(
    ("trajectories", "goals", "sentence"),
    [
        ([], None, "the data set is empty"),
        ([(np.zeros((3, 2)), np.zeros((5, 1)))], None, r"episode 0 has observations of shape \(3, 2\)"),
        ([(np.zeros(3), np.zeros(3))], None, r"episode 0 has observations of shape \(3,\)"),
        ([(np.zeros((1, 2)), np.zeros((0, 1)))], None, "T at least 1"),
        ([(np.zeros((3, 2)), np.zeros(3)), (np.zeros((3, 4)), np.zeros(3))], None, "episode 1 has numbers of 4 and 1"),
        ([(np.zeros((3, 2)), np.zeros(3))], [[0, 0], [1, 1]], r"goals of shape \(2, 2\) came; expected \(1, 2\)"),
    ],
)
def test_trajectories_that_do_not_fit_are_sentences(trajectories: Any, goals: Any, sentence: str) -> None:
    with pytest.raises(DFPlannerError, match=sentence):
        Episodes.from_trajectories(trajectories, goals)
