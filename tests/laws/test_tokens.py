"""Tokens stand for observations and actions, and windows for stretches of episodes, without loss or invention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfplanner.data import Episodes
from dfplanner.data.tokens import Tokenizer
from dfplanner.data.windows import Windows
from dfplanner.testing import plain_tokenizer
from dfplanner.types import DFPlannerError, TokenSpec

SEEDS = st.integers(0, 2**32 - 1)


def spec(act_code: int = 6, chunk: int = 3, horizon: int = 5, pos: tuple[int, ...] = (0, 1)) -> TokenSpec:
    return TokenSpec(obs_dim=4, act_dim=2, chunk=chunk, act_code=act_code, horizon=horizon, dt_s=0.1, pos=pos)


def fitted(act_code: int, seed: int = 0) -> tuple[Tokenizer, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    obs = rng.normal([3, -2, 0, 10], [0.1, 5, 1, 2], (400, 4)).astype(np.float32)
    # chunks whose actions are alike, as those of a smooth controller are
    chunks = rng.normal(0.3, 1, (400, 1, 2)) + 0.2 * rng.normal(size=(400, 3, 2))
    return Tokenizer.fit(spec(act_code), obs, chunks.astype(np.float32)), obs, chunks.astype(np.float32)


@settings(max_examples=20)
@given(SEEDS)
def test_decoding_undoes_encoding(seed: int) -> None:
    """Observations always; actions exactly when no component is left out."""
    tokenizer, *_ = fitted(6)
    g = torch.Generator().manual_seed(seed)
    obs, chunks = 3 * torch.randn(2, 5, 4, generator=g), torch.randn(2, 4, 3, 2, generator=g)
    torch.testing.assert_close(tokenizer.decode_obs(tokenizer.encode_obs(obs)), obs, rtol=1e-5, atol=1e-5)
    codes = tokenizer.encode_actions(chunks)
    assert codes.shape == (2, 4, 6)
    torch.testing.assert_close(tokenizer.decode_actions(codes), chunks, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("act_code", [1, 2, 4])
def test_fewer_components_are_the_best_few(act_code: int) -> None:
    """What is decoded is the least-squares projection: decoding, encoding, decoding changes nothing, the mean error
    falls with every component, and no other subspace of that size would do better (Eckart and Young)."""
    tokenizer, _, chunks = fitted(act_code)
    x = torch.from_numpy(chunks)
    y = tokenizer.decode_actions(tokenizer.encode_actions(x))
    torch.testing.assert_close(tokenizer.decode_actions(tokenizer.encode_actions(y)), y, rtol=1e-4, atol=1e-4)
    flat = chunks.reshape(400, -1).astype(float)
    singular = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    assert (y - x).double().square().sum().item() == pytest.approx((singular[act_code:] ** 2).sum(), rel=1e-3)


def test_codes_are_half_way_to_white_and_of_unit_variance_on_average() -> None:
    tokenizer, obs, chunks = fitted(6)
    codes = tokenizer.encode_actions(torch.from_numpy(chunks)).double()
    assert codes.mean(0).abs().max() < 1e-4 and codes.var(0).mean().item() == pytest.approx(1, rel=0.01)
    flat = chunks.reshape(400, -1).astype(float)
    deviation = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    np.testing.assert_allclose(codes.std(0) ** 2 / codes[:, 0].std() ** 2, deviation / deviation[0], rtol=1e-3)
    coded = tokenizer.encode_obs(torch.from_numpy(obs)).double()
    assert coded.mean(0).abs().max() < 1e-3 and (coded.std(0) - 1).abs().max() < 0.01


def test_a_sequence_of_tokens_is_laid_out_as_said() -> None:
    """Goal token in front; token i holds observation i and the actions that led to it, which the first has none of."""
    tokenizer, *_ = fitted(6)
    g = torch.Generator().manual_seed(0)
    states, chunks, goal = (torch.randn(s, generator=g) for s in ((2, 5, 4), (2, 4, 3, 2), (2, 2)))
    tokens = tokenizer.encode(states, chunks, goal)
    assert tokens.shape == (2, 6, 10)
    torch.testing.assert_close(tokenizer.decode_obs(tokens[:, 1:, :4]), states, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokenizer.decode_actions(tokens[:, 2:, 4:]), chunks, rtol=1e-4, atol=1e-4)
    assert (tokens[:, 1, 4:] == 0).all()
    torch.testing.assert_close(tokenizer.decode_obs(tokens[:, 0, :4])[:, :2], goal, rtol=1e-4, atol=1e-4)
    assert (tokens[:, 0, 2:] == 0).all()
    assert tokenizer.part_of.tolist() == [0] * 4 + [1] * 6


def test_a_position_may_stand_anywhere_in_the_observation() -> None:
    tokenizer = plain_tokenizer(spec(pos=(3, 1)))
    token = tokenizer.goal_token(torch.tensor([[5.0, 6.0]]))
    assert token[0, :4].tolist() == [0, 6, 0, 5]


def test_statistics_make_the_tokenizer_again() -> None:
    tokenizer, *_ = fitted(4)
    again = Tokenizer(tokenizer.spec, {k: v.numpy() for k, v in tokenizer.stats().items()})
    x = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.encode_actions(x), tokenizer.encode_actions(x))


def test_what_does_not_fit_is_a_sentence() -> None:
    tokenizer, obs, chunks = fitted(4)
    with pytest.raises(DFPlannerError, match="act_code 7 exceeds the chunk's 6"):
        Tokenizer.fit(spec(7), obs, chunks)
    with pytest.raises(DFPlannerError, match=r"act_basis has shape .* expected"):
        Tokenizer(spec(5), {k: v.numpy() for k, v in tokenizer.stats().items()})
    with pytest.raises(DFPlannerError, match="needs 6"):
        plain_tokenizer(spec(5))


def episodes(seed: int, lengths: list[int], arrivals: bool, goals: bool = True) -> Episodes:
    """Row i's observation is (i, episode, 0, 0) and its action (i, -i): what is drawn says where it came from."""
    n = sum(lengths)
    rng = np.random.default_rng(seed)
    obs = np.zeros((n, 4), np.float32)
    obs[:, 0], obs[:, 1] = np.arange(n), np.repeat(np.arange(len(lengths)), lengths)
    goal = np.repeat(rng.normal(size=(len(lengths), 2)) if goals else np.full((len(lengths), 2), np.nan), lengths, 0)
    arrival = np.array([rng.integers(-1, k) for k in lengths]) if arrivals else None
    actions = np.stack([np.arange(n), -np.arange(n)], 1)
    starts = np.cumsum([0, *lengths[:-1]])
    return Episodes(obs, actions, goal, np.zeros(n), starts, {}, arrival)  # pyright: ignore[reportArgumentType]


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@settings(max_examples=60)
@given(SEEDS, LENGTHS, st.booleans(), st.booleans(), st.integers(1, 4), st.integers(2, 6))
def test_windows_lie_in_their_episode(seed, lengths, stay, arrivals, chunk: int, horizon: int) -> None:
    e, s = episodes(seed, lengths, arrivals), spec(2 * chunk, chunk, horizon)
    span = (horizon - 1) * chunk + 1
    if not stay and max(lengths) < span:
        with pytest.raises(DFPlannerError, match="no episode is as long as one window"):
            Windows(e, s, stay=False)
        return
    w = Windows(e, s, after_arrival=3, stay=stay)
    rows, own = w.indices(200, np.random.default_rng(seed))
    assert rows.shape == (200, span) and w.length == span
    begin, end = e.starts[own], e.ends[own]
    assert (rows >= begin[:, None]).all() and (rows < end[:, None]).all()
    step = np.diff(rows, axis=1)
    if stay:  # on and on by one step, then resting on the last row
        assert ((step == 1) | ((step == 0) & (rows[:, 1:] == end[:, None] - 1))).all()
        if e.arrival is not None:
            late = rows[:, 0] - begin - e.arrival[own]
            assert (late[e.arrival[own] >= 0] < 3).all()
    else:
        assert (step == 1).all()


@pytest.mark.parametrize("stay, at_start", [(True, 0.0), (True, 0.3), (False, 0.3)])
def test_starts_are_drawn_equally_often_but_for_the_extra_share_at_the_beginning(stay: bool, at_start: float) -> None:
    e = episodes(0, [20, 5, 12], arrivals=False)
    starts = Windows(e, spec(), at_start=at_start, stay=stay).indices(30000, np.random.default_rng(1))[0][:, 0]
    share = np.full(37, (1 - at_start) / 37)
    share[e.starts] += at_start * np.array([20, 5, 12]) / 37
    if not stay:  # only the first episode is as long as a window, 13 steps
        share = np.where(np.arange(37) < 8, 1 / 8, 0)
    count, some = np.bincount(starts, minlength=37), share > 0
    assert (count[~some] == 0).all()
    chi2 = ((count - 30000 * share)[some] ** 2 / (30000 * share[some])).sum()
    assert chi2 < some.sum() + 6 * (2 * some.sum()) ** 0.5


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_what_is_drawn_belongs_together(seed: int, hindsight: float, goals: bool) -> None:
    e, s = episodes(seed, [30, 9, 25], arrivals=True, goals=goals), spec()
    w = Windows(e, s, hindsight=hindsight)
    states, chunks, goal, pace, led = (x.numpy() for x in w.draw(100, np.random.default_rng(seed)))
    assert states.shape == (100, 5, 4) and chunks.shape == (100, 4, 3, 2) and goal.shape == (100, 2)
    assert len(pace) == 100 and np.isnan(pace).all() and (led == s.horizon).all()
    first, own = states[:, 0, 0].astype(int), states[:, 0, 1].astype(int)
    last = e.ends[own] - 1
    rows = np.minimum(first[:, None] + np.arange(13), last[:, None])
    assert (states[:, :, 0] == rows[:, ::3]).all() and (states[:, :, 1] == own[:, None]).all()
    assert (chunks.reshape(100, 12, 2)[..., 0] == rows[:, :12]).all(), "the actions between the observations"
    assert (chunks[..., 1] == -chunks[..., 0]).all()
    given = e.goals[first]
    until = last if goals else rows[:, -1]  # the goal is the episode's, and pursued to its end
    reached = (goal[:, 1] == own) & (goal[:, 0] >= np.minimum(first + 1, last)) & (goal[:, 0] <= until)
    kept = (goal == given).all(1)
    if goals:
        assert (kept | reached).all() and abs(kept.mean() - (1 - hindsight)) < 0.3
        assert kept.all() or hindsight > 0
    else:
        assert reached.all(), "without a goal of its own, a window's goal is where it ends, or a place on its way"
    again = w.draw(100, np.random.default_rng(seed))
    assert all(
        np.array_equal(a, b.numpy(), equal_nan=True)
        for a, b in zip((states, chunks, goal, pace, led), again, strict=True)
    )
