"""Windows over data of one's own: goals that are unknown, or values for other numbers than the first two."""

from __future__ import annotations

import numpy as np
import pytest

from dfplanner.data import Episodes
from dfplanner.data.windows import Windows
from dfplanner.types import DFPlannerError, TokenSpec

SPEC = TokenSpec(obs_dim=3, act_dim=1, chunk=2, act_code=2, horizon=4, dt_s=0.1, pos=(2,))


def episodes(goals: np.ndarray | None, length: int = 20) -> Episodes:
    rng = np.random.default_rng(0)
    runs = [(rng.normal(size=(length, 3)), rng.normal(size=length)) for _ in range(4)]
    return Episodes.from_trajectories(runs, None if goals is None else list(goals), pos=(2,))


@pytest.mark.parametrize("columns", [1, 2])
def test_without_goals_a_window_reaches_its_own_end(columns: int) -> None:
    data = episodes(None)
    data = Episodes(**{**vars(data), "goals": np.full((data.steps, columns), np.nan)})
    states, chunks, goals, *_ = Windows(data, SPEC, stay=False).draw(50, np.random.default_rng(0))
    assert chunks.shape == (50, 3, 2, 1) and goals.shape == (50, 1)
    np.testing.assert_array_equal(goals[:, 0], states[:, -1, 2])


def test_hindsight_takes_places_on_the_way_to_the_goal_and_else_the_goal_told() -> None:
    data = episodes(np.arange(100, 104)[:, None])
    moved = data.goals.copy()
    moved[data.starts[0] + 12 : data.ends[0]] += 0.5  # another goal from the 13th step of the first episode on
    data = Episodes(**{**vars(data), "goals": moved})
    drawn = Windows(data, SPEC, stay=False, hindsight=0.5).draw(800, np.random.default_rng(0))
    states, _, goals, *_ = (x.numpy() for x in drawn)
    told = goals[:, 0] >= 100
    assert 0.4 < told.mean() < 0.6
    where = {value: row for row, value in enumerate(data.observations[:, 2].tolist())}
    first = np.array([where[v] for v in states[~told, 0, 2].tolist()])
    sought = np.array([where[v] for v in goals[~told, 0].tolist()])
    until = np.repeat(data.ends, 20)[first] - 1
    until[first < 12] = 12  # where the first goal was given up
    assert ((sought > first) & (sought <= until)).all()
    assert (sought > first + 6).any(), "also beyond the window"
    assert (sought[first < 12] == 12).any() and (sought == until).any()


def test_an_episode_as_long_as_a_window_is_just_long_enough() -> None:
    need = Windows(episodes(None), SPEC, stay=False).length
    assert (
        need == 7
        and len(
            np.unique(Windows(episodes(None, need), SPEC, stay=False).indices(50, np.random.default_rng(0))[0][:, 0])
        )
        == 4
    )
    with pytest.raises(DFPlannerError, match="no episode is as long as one window of 7 steps"):
        Windows(episodes(None, need - 1), SPEC, stay=False)


def test_goals_and_positions_that_do_not_fit_are_sentences() -> None:
    data = episodes(np.zeros((4, 1)))
    with pytest.raises(DFPlannerError, match=r"goals are 2 numbers, but the position is the numbers \(2,\)"):
        Windows(Episodes(**{**vars(data), "goals": np.zeros((data.steps, 2))}), SPEC)
    with pytest.raises(DFPlannerError, match=r"the position is the numbers \(0, 3\) of an observation, which has 3"):
        Windows(data, TokenSpec(3, 1, 2, 2, 4, 0.1, (0, 3)))
