"""The server: everybody gets their own plan, requests become batches, and nobody suffers from another's faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import torch

pytest.importorskip("websockets", reason="the server needs websockets")
pytest.importorskip("msgpack", reason="the server needs msgpack")
pytest.importorskip("prometheus_client", reason="the server needs prometheus_client")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from dfplanner.planner import Planner
from dfplanner.serve.engine import Engine, PlannerLike
from dfplanner.serve.objectives import goal_alone, torch_objective
from dfplanner.serve.protocol import packb, unpackb
from dfplanner.serve.server import PlanServer, ServeConfig, running
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle

HERE = [1.0, 0.0, 0.0, 0.0]
WAIT, FAIL = [7.0, 0, 0, 0], [13.0, 0, 0, 0]


def fake(planner: PlannerLike) -> Engine:
    """Noise of an unseeded server is 0, so an action is the goal; a seed is added to it."""
    return Engine(planner, goal_alone, lambda seed: 0 if seed > 10**6 else seed, "fake")


def real(planner: Planner) -> Engine:
    return Engine(cast(PlannerLike, planner), torch_objective, lambda seed: torch.Generator().manual_seed(seed))


@contextmanager
def client(server: PlanServer, **more: Any) -> Iterator[ClientConnection]:
    """A connection that was greeted."""
    with connect(server.url, compression=None, max_size=None, **more) as ws:
        assert answer(ws)["protocol"] == "dfplanner/1"
        yield ws


def ask(ws: ClientConnection, **request: Any) -> dict[str, Any]:
    """The reply to a request; an error's text is raised."""
    ws.send(packb({"observation": HERE} | request))
    return answer(ws)


def answer(ws: ClientConnection) -> dict[str, Any]:
    frame = ws.recv(60)
    if isinstance(frame, str):
        raise RuntimeError(frame)
    return unpackb(frame, max_bytes=1 << 26)


def closes_with(ws: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed):
        ws.recv(30)
    return ws.close_code


def get(server: PlanServer, path: str) -> str:
    with urlopen(server.url.replace("ws", "http", 1) + path, timeout=30) as response:
        assert response.status == 200
        return response.read().decode()


def metric(server: PlanServer, name: str) -> float:
    return next(float(line.split()[1]) for line in get(server, "/metrics").splitlines() if line.startswith(f"{name} "))


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_greeting_says_all_a_client_must_know(planner: Any) -> None:
    with running(fake(planner)) as server, connect(server.url, compression=None) as ws:
        m = answer(ws)
    assert m["checkpoint"] == "fake"
    assert m["observation"]["observation"]["shape"] == [4] and m["goal"]["shape"] == [2]
    assert m["action"]["shape"] == [2] and m["dt_s"] == 0.02
    assert (m["horizon"], m["chunk"], m["plan_steps"]) == (10, 5, 15)
    assert {"reach_goal", "stay_near", "avoid"} <= m["objectives"].keys()


def test_every_array_of_a_reply_has_a_row_for_each_action(planner: Any) -> None:
    with running(fake(planner)) as server, client(server) as ws:
        reply = ask(ws, goal=np.array([2.0, 3.0]))
        again = ask(ws, goal=np.array([2.0, 3.0]))
    assert reply["actions"].shape == (10, 2) and reply["actions"].dtype == np.float32
    assert (reply["actions"] == [2, 3]).all()
    np.testing.assert_allclose(reply["states"][:, 0], 1 + np.arange(16) / 5, rtol=1e-6)
    assert all(len(a) >= 10 for a in reply.values() if isinstance(a, np.ndarray))
    assert reply["server_timing"].keys() == {"infer_ms", "queue_ms", "batch"}
    assert again["server_timing"]["prev_total_ms"] >= reply["server_timing"]["infer_ms"]


def test_clients_with_different_goals_are_planned_together_and_get_their_own(planner: Any) -> None:
    with running(fake(planner), ServeConfig(port=0, window_ms=30_000)) as server:
        planner.calls.clear()

        def one(i: int) -> None:
            with client(server) as ws:
                ready.wait(60)
                for n in range(3):
                    ws.send(packb({"observation": HERE, "goal": [float(i), float(n)]}))
                    reply = answer(ws)
                    assert (reply["actions"] == [i, n]).all() and reply["server_timing"]["batch"] == 6
                    ready.wait(60)

        ready = threading.Barrier(6)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(one, range(6)))
        assert [c["n"] for c in planner.calls] == [6, 6, 6]
        assert metric(server, "dfplanner_batch_size_sum") == 18 and metric(server, "dfplanner_batch_size_count") == 3
        assert metric(server, 'dfplanner_requests_total{outcome="ok"}') == 18


def test_the_planner_itself_gives_each_client_its_way_round() -> None:
    world = Circle()
    planner = Planner(world.checkpoint(), PlannerSettings(action_chunks=2))
    engine = real(planner)
    at, way = np.array([3, 8, 8, 20]), np.array([1, -1, 1, -1])
    seen, goals, (states, actions) = world.position(at), world.goal(at, way), world.future(at, way, 6)
    with running(engine, ServeConfig(port=0, window_ms=30_000)) as server:

        def one(i: int) -> dict[str, Any]:
            with client(server) as ws:
                ready.wait(60)
                reply = ask(ws, observation=seen[i], goal=goals[i])
                ready.wait(60)
                return reply

        ready = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(one, range(4)))
    for i, reply in enumerate(replies):
        assert reply["server_timing"]["batch"] == 4
        np.testing.assert_allclose(reply["actions"], actions[i, :4], atol=1e-3)
        np.testing.assert_allclose(reply["states"][::2], states[i], atol=1e-3)


def test_a_request_that_makes_no_sense_gets_a_sentence_and_hurts_nobody_else(planner: Any) -> None:
    frames: list[tuple[bytes | str, str]] = [
        (packb({"goal": [1.0, 2.0]}), "no `observation`"),
        (packb({"observation": [1.0, np.nan, 0, 0]}), "NaN"),
        (packb({"observation": np.zeros(3)}), r"shape \(3,\)"),
        (packb({"observation": HERE, "objective": {"name": "destroy"}}), "no objective is called"),
        (packb({"observation": HERE, "committed": 3}), "no plan yet"),
        (packb({"observation": HERE, "objective": {"name": "smooth"}}), "no gradients"),
        ("text", "text frame"),
        (b"", "ends in the middle"),
        (packb([1, 2]), "expected a map"),
        (packb({"observation": HERE})[:-1], "ends in the middle"),
        (packb({"observation": HERE}) + b"\0", "follow"),
        (packb({"observation": np.zeros(4)}).replace(b"<f8", b"|O8"), "dtype"),
        (packb({"observation": np.zeros(20_000)}), "at most 100000"),
        (packb({"observation": HERE, "prompt": "x" * 110_000}), "at most 100000"),
    ]
    with running(fake(planner), ServeConfig(port=0, max_bytes=100_000)) as server, client(server) as bystander:
        for frame, reason in frames:
            with client(server) as ws:
                ws.send(frame)
                with pytest.raises(RuntimeError, match=reason) as e:
                    answer(ws)
                assert "\n" not in str(e.value) and "Traceback" not in str(e.value)
                assert closes_with(ws) == 1011
        with client(server) as ws:
            ws.send(b"\0" * 300_000)
            assert closes_with(ws) == 1009
        assert (ask(bystander, goal=[4.0, 5.0])["actions"] == [4, 5]).all()
        failed = sum(reason == "no gradients" for _, reason in frames)
        assert metric(server, 'dfplanner_requests_total{outcome="invalid"}') == len(frames) - failed
        assert metric(server, 'dfplanner_requests_total{outcome="failed"}') == failed
        eventually(lambda: metric(server, "dfplanner_connections") == 1)


def test_what_robots_send_to_other_policies_is_understood_or_ignored(planner: Any) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with running(fake(planner)) as server, client(server) as ws:
        for request in (
            {"observation/state": HERE, "observation/image": image, "prompt": "go", "goal": [1.0, 2]},
            {"state": np.array(HERE, np.float32), "images": {"top": image}, "goal": np.array([1, 2])},
            {"observation": HERE, "achieved_goal": [0.0, 0], "desired_goal": np.array([1.0, 2])},
        ):
            ws.send(packb(request))
            assert (answer(ws)["actions"] == [1, 2]).all()


def test_a_plan_is_continued_where_the_client_says_it_is(planner: Any) -> None:
    with running(fake(planner)) as server, client(server) as ws, client(server) as other:
        planner.calls.clear()
        ask(ws, goal=[1.0, 1.0])
        ask(other, goal=[5.0, 5.0])
        fresh = ask(ws, goal=[2.0, 2.0])  # nothing said of the last plan, so nothing is assumed
        kept = ask(ws, goal=[3.0, 3.0], committed=3)
        assert (fresh["actions"] == 2).all()
        assert (kept["actions"][:3] == 2).all() and (kept["actions"][3:] == 3).all()
        late = ask(ws, goal=[4.0, 4.0], elapsed=2, committed=4)
        assert late["actions"][:, 0].tolist() == [2.0] + [3.0] * 3 + [4.0] * 6
        ask(ws, elapsed=15)  # older than it was long
        ask(ws, goal=[6.0, 6.0], elapsed=2)
        ask(ws, reset=True, elapsed=2)
        told = [(c["previous"] is not None, c["committed"], c["elapsed"]) for c in planner.calls]
        fresh_one = (False, 0, 0)
        assert told == [fresh_one, fresh_one, fresh_one, (True, 3, 7), (True, 4, 2), fresh_one, (True, 0, 2), fresh_one]
        with pytest.raises(RuntimeError, match="ask earlier"):
            ask(ws, elapsed=8, committed=3)


def test_warm_and_cold_requests_are_batched_with_their_like(planner: Any) -> None:
    with running(fake(planner), ServeConfig(port=0, window_ms=30_000)) as server:
        planner.calls.clear()
        follow: list[dict[str, Any]] = [{"elapsed": 2}, {"elapsed": 4}, {"elapsed": 1, "committed": 2}, {}]

        def one(i: int) -> None:
            with client(server) as ws:
                for request in ({}, follow[i]):
                    ready.wait(60)
                    assert (ask(ws, goal=[float(i), 0.0], **request)["actions"] == [i, 0]).all()
                ready.wait(60)

        ready = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(4)))
        assert planner.calls[0]["n"] == 4
        warm = {c["committed"]: c for c in planner.calls[1:] if c["previous"] is not None}
        assert sorted(np.atleast_1d(warm[0]["elapsed"]).tolist()) == [2, 4] and len(warm[0]["previous"].tokens) == 2
        assert warm[2]["n"] == 1 and sorted(c["n"] for c in planner.calls[1:]) == [1, 1, 2]


def test_a_seed_fixes_the_noise_whoever_else_asks(planner: Any) -> None:
    with running(fake(planner)) as server, client(server) as ws, client(server) as other:
        other.send(packb({"observation": HERE}))
        assert (ask(ws, seed=3)["actions"] == 3).all() and (ask(ws)["actions"] == 0).all()
        assert (answer(other)["actions"] == 0).all()


def test_the_planners_failure_is_told_to_whom_it_concerns(planner: Any) -> None:
    with running(fake(planner), ServeConfig(port=0, window_ms=30_000)) as server:
        with client(server) as good, client(server) as bad:
            good.send(packb({"observation": HERE, "goal": [1.0, 2.0]}))
            bad.send(packb({"observation": FAIL}))
            assert (answer(good)["actions"] == [1, 2]).all()
            with pytest.raises(RuntimeError, match="ArithmeticError"):
                answer(bad)
            assert closes_with(bad) == 1011
            eventually(lambda: metric(server, "dfplanner_connections") == 1)
            assert (ask(good, goal=[3.0, 4.0])["actions"] == [3, 4]).all()
        assert metric(server, 'dfplanner_requests_total{outcome="failed"}') == 1


def test_health_and_metrics_answer_while_the_planner_works(planner: Any) -> None:
    with running(fake(planner)) as server, client(server) as ws:
        ws.send(packb({"observation": WAIT}))
        assert planner.at_gate.wait(60)
        assert get(server, "/healthz") == "OK\n"
        assert metric(server, "dfplanner_connections") == 1
        planner.gate.set()
        answer(ws)
        eventually(lambda: metric(server, "dfplanner_request_seconds_count") == 1)


def test_a_full_queue_is_a_busy_answer(planner: Any) -> None:
    with running(fake(planner), ServeConfig(port=0, max_queue=2, window_ms=0)) as server:
        with client(server) as first, client(server) as second, client(server) as third, client(server) as late:
            first.send(packb({"observation": WAIT}))
            assert planner.at_gate.wait(60)
            for ws in (second, third):
                ws.send(packb({"observation": HERE}))
            eventually(lambda: metric(server, "dfplanner_queue") == 2)
            late.send(packb({"observation": HERE}))
            with pytest.raises(RuntimeError, match=r"^busy: 2 requests are waiting"):
                answer(late)
            assert closes_with(late) == 1013
            planner.gate.set()
            for ws in (first, second, third):
                answer(ws)
        assert metric(server, 'dfplanner_rejects_total{reason="queue"}') == 1
        assert metric(server, 'dfplanner_requests_total{outcome="busy"}') == 1


def test_one_client_too_many_is_told_so_before_it_connects(planner: Any) -> None:
    with running(fake(planner), ServeConfig(port=0, max_connections=1)) as server:
        with client(server) as ws:
            with pytest.raises(InvalidStatus) as e, connect(server.url):
                pass
            assert e.value.response.status_code == 503 and b"busy: 1 clients" in e.value.response.body
            ask(ws)
        eventually(lambda: metric(server, "dfplanner_connections") == 0)
        with client(server) as ws:
            ask(ws)


def test_web_pages_may_not_connect_unless_they_are_named(planner: Any) -> None:
    with running(fake(planner), ServeConfig(port=0, origins=("https://good.example",))) as server:
        evil: Any = "https://evil.example"
        with pytest.raises(InvalidStatus) as e, connect(server.url, origin=evil):
            pass
        assert e.value.response.status_code == 403
        with client(server, origin="https://good.example") as ws:
            ask(ws)


def test_other_paths_are_no_web_server(planner: Any) -> None:
    with running(fake(planner)) as server:
        with pytest.raises(HTTPError) as e:
            get(server, "/")
        assert e.value.code == 426
        e.value.close()


def test_who_does_not_take_replies_is_dropped(new_planner: Any) -> None:
    big = new_planner(tokens=30_000)
    with running(fake(big), ServeConfig(port=0, send_timeout_s=1.0)) as server, client(server) as ws:
        with connect(server.url, compression=None, max_size=None, max_queue=1) as slow:
            for _ in range(20):  # 4 MB of reply each, never read
                try:
                    slow.send(packb({"observation": HERE}))
                except ConnectionClosed:
                    break
                ask(ws)
            eventually(lambda: metric(server, 'dfplanner_requests_total{outcome="unsent"}') >= 1)
            eventually(lambda: metric(server, "dfplanner_connections") == 1)
        ask(ws)


def test_who_is_gone_before_the_answer_hurts_nobody(planner: Any) -> None:
    with running(fake(planner)) as server, client(server) as ws:
        with client(server) as gone:
            gone.send(packb({"observation": WAIT}))
            assert planner.at_gate.wait(60)
            gone.socket.shutdown(2)
        planner.gate.set()
        assert (ask(ws, goal=[1.0, 2.0])["actions"] == [1, 2]).all()
        eventually(lambda: metric(server, "dfplanner_connections") == 1)
