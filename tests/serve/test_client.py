"""The client, against a fake server: what it sends and tells, what it asks again and what it never does."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("websockets", reason="the client needs websockets")
pytest.importorskip("msgpack", reason="the client needs msgpack")

from websockets.sync.server import ServerConnection

from dfplanner.serve.client import BadRequest, PlannerClient, Reply, ServerBusy, ServerLost, backoff
from dfplanner.serve.fake import FakeServer, answer, busy, die, refuse
from dfplanner.serve.protocol import packb

SEEN = np.array([1.0, 2.0, 0.0, 0.0], np.float32)
QUICK: dict[str, Any] = {"timeout_s": 5.0, "connect_timeout_s": 5.0, "first_backoff_s": 0.005, "max_backoff_s": 0.02}


@given(st.integers(0, 2**32), st.floats(1e-3, 1), st.floats(1, 60))
def test_waits_double_up_to_a_ceiling_within_their_jitter_and_follow_the_seed(
    seed: int, first: float, ceiling: float
) -> None:
    waits = list(islice(backoff(np.random.default_rng(seed), first, ceiling), 20))
    for n, wait in enumerate(waits):
        assert 0.5 * min(first * 2**n, ceiling) <= wait <= min(first * 2**n, ceiling)
    assert waits == list(islice(backoff(np.random.default_rng(seed), first, ceiling), 20))


def test_a_reply_holds_what_the_server_sent_and_a_request_what_was_asked() -> None:
    with FakeServer() as server, PlannerClient(server.url, **QUICK) as client:
        assert client.metadata == FakeServer.metadata
        reply = client.infer(SEEN, goal=[3, 1], seed=7)
        assert isinstance(reply, Reply) and reply.states is not None
        np.testing.assert_array_equal(reply.actions, np.ones((3, 2)))
        np.testing.assert_array_equal(reply.states, np.tile(SEEN, (3, 1)))
        assert reply.timing == {"infer_ms": 1.5} and reply.round_trip_ms > 0
        client.infer(list(SEEN), objective={"name": "stay", "x": np.float32(1)})
        first, second = server.requests
        np.testing.assert_array_equal(first["observation"], SEEN)
        np.testing.assert_array_equal(first["goal"], [3, 1])
        assert first["seed"] == 7 and "objective" not in first
        assert second["objective"] == {"name": "stay", "x": 1} and "goal" not in second and "seed" not in second
        assert server.connections == 1


def test_only_a_plan_that_continues_the_last_one_is_not_fresh() -> None:
    with FakeServer() as server, PlannerClient(server.url, **QUICK) as client:
        replies = [client.infer(SEEN, committed=2, elapsed=5) for _ in range(3)]
        replies += [client.infer(SEEN, reset=True), client.infer(SEEN)]
        assert [r.fresh for r in replies] == [True, False, False, True, True]
        assert [r["reset"] for r in server.requests] == [True, False, False, True, True]
        sent = [(r.get("committed"), r.get("elapsed")) for r in server.requests]
        assert sent == [
            (None, None),
            (2, 5),
            (2, 5),
            (0, None),
            (0, None),
        ]  # the first has nothing that it could have committed


def test_a_lost_request_is_asked_again_afresh_and_the_caller_is_told() -> None:
    with FakeServer(answer, die) as server, PlannerClient(server.url, **QUICK) as client:
        assert client.infer(SEEN).fresh
        reply = client.infer(SEEN, committed=3, elapsed=4)
        assert reply.fresh
        assert [r["reset"] for r in server.requests] == [True, False, True]
        assert server.requests[1]["committed"] == 3 and "committed" not in server.requests[2]
        assert not client.infer(SEEN, elapsed=1).fresh
        assert server.connections == 2


def test_without_patience_a_lost_server_is_told_at_once_and_the_next_call_reconnects() -> None:
    with (
        FakeServer(die) as server,
        PlannerClient(server.url, max_wait_s=0, **{**QUICK, "first_backoff_s": 0.0}) as client,
    ):
        with pytest.raises(ServerLost, match="the server stopped or the network broke"):
            client.infer(SEEN)
        assert client.infer(SEEN).fresh and server.connections == 2


def test_the_client_outlives_the_server() -> None:
    with FakeServer() as server, PlannerClient(server.url, max_wait_s=0, **QUICK) as client:
        client.infer(SEEN)
        server.stop()
        for _ in range(3):
            with pytest.raises(ServerLost):
                client.infer(SEEN)
        server.start()
        client.max_wait_s = 20
        assert client.infer(SEEN).fresh


def test_attempts_of_different_calls_keep_their_distance() -> None:
    slow = {**QUICK, "first_backoff_s": 3600.0, "max_backoff_s": 3600.0}
    with FakeServer(die) as server, PlannerClient(server.url, max_wait_s=0, **slow) as client:
        with pytest.raises(ServerLost):
            client.infer(SEEN)
        for _ in range(5):
            with pytest.raises(ServerLost, match=r"the next attempt may be made in .* s"):
                client.infer(SEEN)
        assert server.connections == 1


def test_a_refused_request_is_not_sent_again_and_its_reason_is_told() -> None:
    with FakeServer(refuse) as server, PlannerClient(server.url, **QUICK) as client:
        with pytest.raises(BadRequest, match="refused: the goal is not finite; send numbers"):
            client.infer(SEEN)
        assert len(server.requests) == 1
        assert client.infer(SEEN).fresh and server.connections == 2


def test_a_busy_server_is_asked_again_until_it_answers() -> None:
    with FakeServer(busy, busy, busy) as server, PlannerClient(server.url, **QUICK) as client:
        np.testing.assert_array_equal(client.infer(SEEN).actions, np.ones((3, 2)))
        assert len(server.requests) == 4


def test_a_server_that_stays_busy_is_told_to_be() -> None:
    with FakeServer(*[busy] * 1000) as server, PlannerClient(server.url, **QUICK) as client:
        client.max_wait_s = 0.1
        with pytest.raises(ServerBusy, match="busy: 8 requests wait"):
            client.infer(SEEN)
        assert len(server.requests) > 1


@pytest.mark.parametrize("text", ["busy: 64 clients are connected", None], ids=["text", "code alone"])
def test_a_server_may_be_busy_at_the_door(text: str | None) -> None:
    def greet(connection: ServerConnection, n: int) -> None:
        if n > 2:
            return connection.send(packb(FakeServer.metadata))
        if text:
            connection.send(text)
        return connection.close(1013, "" if text else "full")

    with FakeServer(greet=greet) as server, PlannerClient(server.url, **QUICK) as client:
        assert client.metadata == FakeServer.metadata and server.connections == 3
    with FakeServer(greet=greet) as server, pytest.raises(ServerBusy):
        PlannerClient(server.url, max_wait_s=0, **QUICK)


def test_a_late_answer_is_never_taken_for_that_of_the_next_request() -> None:
    go = threading.Event()

    def late(connection: ServerConnection, request: dict[str, Any]) -> None:
        go.wait(30)
        answer(connection, request)

    with (
        FakeServer(late) as server,
        PlannerClient(server.url, max_wait_s=0, **{**QUICK, "first_backoff_s": 0.0}) as client,
    ):
        client.timeout_s = 0.1
        with pytest.raises(ServerLost, match=r"no answer within 0\.1 s"):
            client.infer(SEEN)
        go.set()
        client.timeout_s = 5.0
        np.testing.assert_array_equal(client.infer(SEEN + 1).actions, np.full((3, 2), 2.0))


def test_closing_ends_a_call_that_waits_in_another_thread() -> None:
    asked, errors = threading.Event(), []

    def wait(connection: ServerConnection, request: dict[str, Any]) -> None:
        asked.set()
        server.over.wait(30)

    with FakeServer(wait) as server:
        client = PlannerClient(server.url, **{**QUICK, "timeout_s": 60.0})

        def call() -> None:
            try:
                client.infer(SEEN)
            except ServerLost as e:
                errors.append(e)

        thread = threading.Thread(target=call)
        thread.start()
        assert asked.wait(30)
        client.close()
        thread.join(30)
        assert not thread.is_alive() and len(errors) == 1
        with pytest.raises(ServerLost, match="was closed; make a new one"):
            client.infer(SEEN)
        client.close()


def test_threads_that_share_a_client_get_their_own_answers() -> None:
    wrong: list[object] = []
    with FakeServer() as server, PlannerClient(server.url, **QUICK) as client:

        def ask(k: int) -> None:
            for i in range(20):
                reply = client.infer(np.full(4, 100.0 * k + i))
                if not (reply.actions == 100 * k + i).all():
                    wrong.append((k, i, reply))

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong and len(server.requests) == 80


ALONE = """
import sys

ALLOWED = {"dfplanner", "numpy", "msgpack", "websockets"} | sys.stdlib_module_names

class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Bar())
try:
    import torch
except ImportError:
    pass
else:
    raise SystemExit("torch could be imported: the bar does not hold")
from dfplanner.serve.client import PlannerClient
with PlannerClient(sys.argv[1]) as client:
    print(client.infer([4.0, 2.0, 0.0, 0.0]).actions[0, 0])
"""


def test_numpy_msgpack_and_websockets_are_all_it_needs() -> None:
    seen = (
        "import sys, dfplanner.serve.client as c; print(sorted({'torch', 'mujoco', 'gymnasium'} & sys.modules.keys()))"
    )
    imported = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert imported.stdout.strip() == "[]"
    with FakeServer() as server:
        alone = subprocess.run([sys.executable, "-c", ALONE, server.url], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.strip() == "4.0"


def test_the_page_about_it_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert blocks
    with FakeServer() as server:
        exec("\n".join(blocks).replace("ws://127.0.0.1:8000", server.url), {})
        assert server.requests
