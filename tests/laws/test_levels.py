"""Which levels training draws: the methods differ in nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfplanner.levels import observation_levels, training_levels
from dfplanner.types import DFPlannerError

RECIPES = ("diffusion-forcing", "independent", "teacher-forcing", "full-sequence")
N = 6000


def draw(recipe, n: int = N, tokens: int = 8, k: int = 1000, seed: int = 0, **more):
    return training_levels(n, tokens, k, recipe, np.random.default_rng(seed), **more)


def near(share: float, want: float, n: int = N) -> bool:
    """Within five standard deviations of n draws."""
    return abs(share - want) < 5 * np.sqrt(max(want * (1 - want), 1e-6) / n)


@given(st.sampled_from(RECIPES), st.integers(2, 12), st.integers(1, 1000), st.integers(0, 2**32 - 1), st.booleans())
def test_shapes_range_and_what_never_counts(recipe, tokens: int, k: int, seed: int, paced: bool) -> None:
    known = np.arange(60) % 2 == 0 if paced else None
    levels, loss = draw(recipe, 60, tokens, k, seed, pace_known=known)
    assert levels.shape == loss.shape == (60, 1 + tokens, 2)
    assert levels.dtype == np.int64 and loss.dtype == bool
    assert levels.min() >= 0 and levels.max() <= k
    assert not loss[levels == 0].any(), "what is clean"
    assert not loss[:, 0].any(), "the goal token"
    assert not loss[:, 1:, 1][levels[:, 1:, 1] == k].any(), "actions that are pure noise"
    assert (levels[:, 1, 1] == k).all() and not loss[:, 1, 1].any(), "nothing led to the first observation"
    assert np.isin(levels[:, 0], (0, k)).all()
    unknown = np.ones(60, bool) if known is None else ~known
    assert (levels[unknown, 0, 1] == k).all(), "a pace that is unknown"
    again, mask = draw(recipe, 60, tokens, k, seed, pace_known=known)
    assert (again == levels).all() and (mask == loss).all()


@pytest.mark.parametrize("recipe", ["diffusion-forcing", "independent", "full-sequence"])
def test_whatever_is_noisy_counts(recipe) -> None:
    levels, loss = draw(recipe)
    body, mask = levels[:, 1:], loss[:, 1:]
    assert (mask[..., 0] == (body[..., 0] > 0)).all()
    assert (mask[..., 1] == ((body[..., 1] > 0) & (body[..., 1] < 1000))).all()


def test_goals_are_dropped_as_often_as_asked_and_known_paces_shown_at_times() -> None:
    for dropout in (0.0, 0.15, 0.6, 1.0):
        levels, _ = draw("diffusion-forcing", goal_dropout=dropout, pace_known=np.ones(N, bool))
        assert near((levels[:, 0, 0] == 1000).mean(), dropout)
        assert 0.05 < (levels[:, 0, 1] == 0).mean() < 0.95


def test_the_four_kinds_of_action_levels() -> None:
    """35 % noise, 30 % inverse dynamics, 20 % with the observations, 15 % a forward model: by signs no two share."""
    levels, _ = draw("independent")
    obs, act = levels[:, 1:, 0], levels[:, 2:, 1]
    noise = (act == 1000).all(1)
    inverse = (obs == 0).all(1)
    with_obs = (act == obs[:, 1:]).all(1)
    committed = (act[:, 0] == 0) & ~inverse
    assert (noise.astype(int) + inverse + with_obs + committed == 1).all()
    for kind, share in ((noise, 0.35), (inverse, 0.3), (with_obs, 0.2), (committed, 0.15)):
        assert near(kind.mean(), share)
    forward = act[committed]
    assert np.isin(forward, (0, 1000)).all() and (np.diff(forward, axis=1) >= 0).all(), "committed, then unknown"
    held = (forward == 0).sum(1)
    assert held.min() == 1 and held.max() == 8 // 2 - 1
    free = act[inverse]
    assert near((free <= 500).mean(), 0.5, free.size) and (np.diff(free, axis=1) != 0).any()


def observations(recipe, tokens: int = 8, n: int = N):
    return observation_levels(n, tokens, 1000, recipe, np.random.default_rng(1))


def test_diffusion_forcing_mixes_independent_sorted_and_shared() -> None:
    levels, loss = observations("diffusion-forcing")
    assert loss.all() and near((levels[:, 0] == 0).mean(), 0.85)
    rest = levels[:, 1:]
    shared = (rest == rest[:, :1]).all(1)
    rising = (np.diff(rest, axis=1) >= 0).all(1) & ~shared
    assert near(shared.mean(), 0.3) and near(rising.mean(), 0.3, n=N // 2)  # few independent ones rise by chance
    independent = rest[~shared & ~rising]
    assert near(len(independent) / N, 0.4, n=N // 2)
    assert abs(np.corrcoef(independent[:, 0], independent[:, 1])[0, 1]) < 0.1
    for column in (rest[shared, 0], independent[:, 3]):  # uniform over 1..K
        assert column.min() >= 1 and near((column <= 250).mean(), 0.25, len(column))


def test_independent_is_every_token_for_itself() -> None:
    levels, loss = observations("independent")
    assert loss.all() and levels.min() >= 1
    assert np.abs(np.corrcoef(levels.T) - np.eye(8)).max() < 0.08
    assert near((levels <= 300).mean(), 0.3, levels.size)


def test_full_sequence_shares_one_level() -> None:
    levels, loss = observations("full-sequence")
    assert loss.all() and near((levels[:, 0] == 0).mean(), 0.85)
    assert (levels[:, 1:] == levels[:, 1:2]).all()
    noisy_first = levels[:, 0] > 0
    assert (levels[noisy_first, 0] == levels[noisy_first, 1]).all()


def test_teacher_forcing_denoises_one_token_after_a_clean_past() -> None:
    levels, loss = observations("teacher-forcing")
    assert (loss.sum(1) == 1).all()
    at = loss.argmax(1)
    assert at.min() == 1 and at.max() == 7 and near((at == 4).mean(), 1 / 7)
    t = np.arange(8)
    assert (levels[t < at[:, None]] == 0).all() and (levels[t > at[:, None]] == 1000).all()
    now = levels[np.arange(N), at]
    assert now.min() >= 1 and near((now <= 500).mean(), 0.5)


def test_teacher_forcing_counts_one_token_but_every_action_of_inverse_dynamics() -> None:
    levels, loss = draw("teacher-forcing")
    obs, act = levels[:, 1:, 0], levels[:, 1:, 1]
    inverse = (obs == 0).all(1)
    assert near(inverse.mean(), 0.3)
    assert (loss[inverse, 1:, 1] == ((act[inverse] > 0) & (act[inverse] < 1000))).all()
    assert not loss[inverse, 1:, 0].any() and (loss[~inverse, 1:, 0].sum(1) == 1).all()
    at = loss[~inverse, 1:, 0]
    assert not (loss[~inverse, 1:, 1] & ~at).any(), "actions after the next token are not to be learned"
    assert loss[~inverse, 1:, 1].any()


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(DFPlannerError, match=", ".join(RECIPES)):
        draw("student-forcing")


@given(st.integers(0, 2**32 - 1), st.sampled_from(RECIPES))
def test_tokens_that_went_elsewhere_are_noise_and_do_not_count(seed: int, recipe) -> None:
    led = np.random.default_rng(seed).integers(2, 7, 50)
    levels, loss = draw(recipe, 50, 6, 100, seed, led=led)
    same, counted = draw(recipe, 50, 6, 100, seed)
    astray = np.concatenate([np.zeros((50, 1), bool), np.arange(6) >= led[:, None]], 1)
    assert (levels[astray] == 100).all() and not loss[astray].any()
    assert (levels[~astray] == same[~astray]).all() and (loss[~astray] == counted[~astray]).all()
