"""Under load every client gets plans for its own observation and goal, and the benchmark would notice if not."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the client needs websockets")
pytest.importorskip("msgpack", reason="the client needs msgpack")
pytest.importorskip("prometheus_client", reason="the server needs prometheus_client")

from dfplanner.bench.serve import Questions, Report, http_get, load, metric, server_process
from dfplanner.cli import main
from dfplanner.guidance import ReachGoal
from dfplanner.serve.client import PlannerClient
from dfplanner.serve.engine import PlannerLike
from dfplanner.serve.fake import circle_engine
from dfplanner.serve.server import ServeConfig, running
from dfplanner.testing import Circle
from dfplanner.types import DFPlannerError, Plan

CLIENTS, EACH = 64, 32
WORLD = Circle()


@pytest.mark.slow
def test_64_clients_get_2048_plans_each_exactly_their_own() -> None:
    command = [sys.executable, "-m", "dfplanner.serve.fake", json.dumps({"port": 0, "window_ms": 20})]
    with server_process(command) as server:

        def work(k: int) -> int:
            rng, right = np.random.default_rng(k), 0
            with PlannerClient(server.url, timeout_s=120, connect_timeout_s=60, max_wait_s=120) as client:
                for _ in range(EACH):
                    at, way = rng.integers(WORLD.places), rng.choice([1, -1])
                    states, actions = WORLD.future(np.array([at]), way, WORLD.spec.horizon)
                    reply = client.infer(WORLD.position(at), WORLD.goal(at, way))
                    assert reply.states is not None
                    np.testing.assert_allclose(reply.states[:: WORLD.spec.chunk], states[0], atol=2e-3)
                    np.testing.assert_allclose(reply.actions, actions[0, : len(reply.actions)], atol=2e-3)
                    right += 1
            return right

        with ThreadPoolExecutor(CLIENTS) as pool:
            assert sum(pool.map(work, range(CLIENTS))) == CLIENTS * EACH >= 2000
        page = server.get("/metrics")
    assert metric(page, "dfplanner_batch_size_sum") == CLIENTS * EACH
    assert metric(page, "dfplanner_batch_size_count") < CLIENTS * EACH / 2, "hardly any requests were planned together"
    assert metric(page, "dfplanner_rejects_total") == 0


def circle_questions(n: int, step: int) -> Questions:
    """Each begins ``step`` places after the one before, and goes the other way round."""
    at, way = step * np.arange(n), np.tile([1, -1], n)[:n]
    return Questions(WORLD.position(at), WORLD.goal(at, way))


class MixedUp:
    """A planner that answers each of a batch with the plan, or with a plan to the goal, of another."""

    def __init__(self, planner: PlannerLike, what: str) -> None:
        self.planner, self.what, self.spec = planner, what, planner.spec

    def plan(self, history: Any, objective: Any = None, *args: Any, **kwargs: Any) -> Plan:
        if self.what == "goals" and objective is not None:
            (weight, reach), *_ = objective.terms
            objective = weight * ReachGoal(np.roll(reach.goal, 1, 0))
        plan = self.planner.plan(history, objective, *args, **kwargs)
        if self.what == "plans":
            plan = replace(plan, states=np.roll(plan.states, 1, 0), actions=np.roll(plan.actions, 1, 0))
        return plan


@pytest.mark.parametrize(("what", "step"), [("nothing", 0), ("nothing", 5), ("plans", 5), ("goals", 0)])
def test_a_server_that_mixes_its_clients_up_is_found_out(what: str, step: int) -> None:
    engine = circle_engine()
    mixed = replace(engine, planner=cast(PlannerLike, MixedUp(engine.planner, what)))
    report = Report("circle")
    with running(mixed, ServeConfig(port=0, window_ms=30_000)) as server:
        report.rows["mixed"] = row = load(server.url, circle_questions(12, step), clients=4)
    found = row.to_dict()
    assert row.checked and row.mean_batch == 4 and found["answered"] == 12
    if what == "nothing":
        assert row.wrong == 0 and found["another_goal_would_pass"] == 0
        report.check()
        return
    # of four goals, two each way, at least two are exchanged, in whatever order the four arrive
    assert row.wrong >= (12 if what == "plans" else 6) and row.strangers == (12 if what == "plans" else 0)
    with pytest.raises(DFPlannerError, match="replies were not their request's"):
        report.check()


def test_requests_that_fail_are_told_with_their_reason() -> None:
    questions = circle_questions(6, 5)
    questions.observations[2] = np.nan
    with running(circle_engine(), ServeConfig(port=0)) as server:
        row = load(server.url, questions, clients=2)
        assert metric(http_get(server.url, "/metrics"), 'dfplanner_requests_total{outcome="invalid"}') == 1
    assert row.to_dict()["answered"] == 5 and list(row.failures.values()) == [1] and row.wrong == 0
    with pytest.raises(DFPlannerError, match=r"1 requests failed \(BadRequest: .* holds a NaN"):
        Report("circle", {"row": row}).check()


@pytest.mark.slow
def test_the_command_measures_three_servers_and_writes_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"bench serve --clients 4 --requests 24 --json {tmp_path / 'out.json'}".split()) == 0
    said, wrote = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    assert "batching gain" in said and "seeded requests" in said
    assert wrote["batching_gain"] > 0 and wrote["deviation"] <= 1e-4 and list(wrote["rows"]) == list(LABELS)
    for name, row in wrote["rows"].items():
        assert row["requests"] == row["answered"] == 24 and row["wrong"] == 0 and row["failures"] == {}
        assert 0 < row["p50_ms"] <= row["p99_ms"] and row["checked_for_goal"] == (name == "whole plans")
    assert wrote["rows"]["one by one"]["mean_batch"] == 1


LABELS = ("batched", "one by one", "whole plans")
WRONG = {
    "bench serve --clients 0": "0 clients, 2000 requests, 1 threads and seed 0 came",
    "bench serve --url ws://127.0.0.1:9": "nobody listens at ws://127.0.0.1:9",
    "bench serve --checkpoint nope": "unknown checkpoint 'nope'; bundled: ",
    "bench serve --client 3": "unrecognized options: --client",
}


@pytest.mark.parametrize("command", WRONG)
def test_what_cannot_be_measured_is_told(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    assert WRONG[command] in capsys.readouterr().err


@pytest.mark.parametrize(
    "last", ["sys.exit('dfplanner: the port is taken')", "print('something else', file=sys.stderr)"]
)
def test_a_server_that_does_not_start_says_why(last: str) -> None:
    command = [sys.executable, "-c", f"import sys; {last}"]
    with (
        pytest.raises(DFPlannerError, match=r"the server did not start: (the port is taken|something else)$"),
        server_process(command),
    ):
        pass
