"""openpi's published client and broker drive the planner as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the server needs websockets")
pytest.importorskip("msgpack", reason="the server needs msgpack")
pytest.importorskip("prometheus_client", reason="the server needs prometheus_client")
pytest.importorskip("openpi_client.websocket_client_policy", reason="openpi-client is not installed")
pytest.importorskip("openpi_client.action_chunk_broker", reason="openpi-client's broker needs dm-tree")

import torch
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import ConnectionClosed

from dfplanner.checkpoint import bundled
from dfplanner.planner import Planner
from dfplanner.serve.engine import Engine, PlannerLike, make_planner
from dfplanner.serve.objectives import torch_objective
from dfplanner.serve.server import running
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle

# openpi's client calls connect() as websockets before 17 wanted it
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
WORLD = Circle()


def engine() -> Engine:
    planner = Planner(WORLD.checkpoint(), PlannerSettings(action_chunks=2))
    return Engine(cast(PlannerLike, planner), torch_objective, lambda seed: torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("horizon", [1, 3, 4])
def test_the_broker_goes_round_the_circle(horizon: int) -> None:
    """Every action it hands out is the world's own, at whatever chunk length it replans."""
    with running(engine()) as server:
        policy = WebsocketClientPolicy(server.url)
        assert policy.get_server_metadata()["horizon"] == 4
        broker = ActionChunkBroker(policy, horizon)
        for place in range(8):
            seen = WORLD.position(place)
            start = place - place % horizon  # where the plan began that is executed now
            out = broker.infer({"observation": seen, "goal": WORLD.goal(start, 1), "prompt": "go round"})
            np.testing.assert_allclose(out["actions"], WORLD.action(place, 1), atol=1e-3)
            np.testing.assert_allclose(out["states"][:2], _between(start, place), atol=1e-3)
            assert out["server_timing"]["infer_ms"] > 0
        broker.reset()
        policy._ws.close()


def _between(start: int, place: int) -> Any:
    """A plan's state at a place: tokens are two places apart, with straight lines between."""
    token = start + 2 * ((place - start) // 2)
    share = (place - token) / 2
    return (1 - share) * WORLD.position(token) + share * WORLD.position(token + 2)


def test_the_clients_own_words_for_an_error() -> None:
    with running(engine()) as server:
        policy = WebsocketClientPolicy(server.url.rsplit(":", 1)[0], server.port, api_key="ignored")
        policy.infer({"observation": WORLD.position(0)})
        with pytest.raises(RuntimeError, match=r"Error in inference server:\nthe observation holds a NaN"):
            policy.infer({"observation": np.array([np.nan, 0.0])})
        with pytest.raises(ConnectionClosed) as e:
            policy.infer({"observation": WORLD.position(0)})
        assert e.value.rcvd is not None and e.value.rcvd.code == 1011


def test_the_page_about_the_server_holds(capsys: pytest.CaptureFixture[str]) -> None:
    if "maze2d-umaze" not in bundled():
        pytest.skip("the bundled weights are not here")
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    with running(make_planner("maze2d-umaze")) as server:
        names: dict[str, Any] = {}
        exec(code.replace("8000", str(server.port)), names)
        names["policy"]._ws.close()
    assert "'dt_s': 0.01" in (said := capsys.readouterr().out) and said.endswith("(20, 2)\n(2,)\n")
