"""A process that answers as ``dfplanner serve`` does, with plans straight to the goal. ``chunk_server.py PORT``."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from websockets.sync.server import ServerConnection

from dfplanner.serve.fake import FakeServer
from dfplanner.serve.protocol import packb
from dfplanner_envs.arm.task import reach_task
from dfplanner_robot.fakes import FakeChunks

CHUNK, ACTIONS, DT_S = 5, 15, 0.05


class Always(list):
    """A script that never ends."""

    def __init__(self, step: Any) -> None:
        super().__init__([step])

    def pop(self, index: Any = 0) -> Any:
        return self[0]


class ChunkServer(FakeServer):
    """Plans of fifteen actions, with states and levels."""

    metadata = {
        "protocol": "fake",
        "dt_s": DT_S,
        "horizon": ACTIONS,
        "chunk": CHUNK,
        "observation": {"observation": {"shape": [17]}},
        "goal": {"shape": [7]},
    }

    def __init__(self, port: int = 0) -> None:
        self.task = reach_task()
        self.planners: dict[ServerConnection, FakeChunks] = {}
        self.wanted = port
        super().__init__()
        self.script = Always(self.answer)

    def start(self) -> None:
        self.port = self.port or self.wanted
        super().start()

    def answer(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        self.requests.clear()
        limits = self.task.arm.limits
        planner = self.planners.setdefault(connection, FakeChunks(limits, actions=ACTIONS))
        posture, observation = np.asarray(request["goal"]), np.asarray(request["observation"])
        elapsed = None if request.get("reset") else request.get("elapsed")
        plan = planner.plan(observation, posture, request.get("committed") or 0, elapsed)
        v = np.concatenate([observation[None, 10:], plan.actions * limits.velocity])
        q = observation[3:10] + np.concatenate([np.zeros((1, 7)), np.cumsum((v[1:] + v[:-1]) / 2 * DT_S, axis=0)])
        states = np.concatenate([self.task.chain.hand(q), q, v], axis=1)
        levels = np.linspace(0, 1000, len(states)).astype(np.int64)
        timing = {"infer_ms": 1.0}
        connection.send(packb({"actions": plan.actions, "states": states, "levels": levels, "server_timing": timing}))


if __name__ == "__main__":
    with ChunkServer(int(sys.argv[-1].rpartition("=")[2]) if len(sys.argv) > 1 else 0) as server:
        print(f"listening on {server.url}", flush=True)
        threading.Event().wait()
