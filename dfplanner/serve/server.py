"""``dfplanner serve``: openpi's WebSocket wire, ``/healthz`` and ``/metrics``, around a planner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin

from dfplanner.serve.batcher import Batcher, Busy, PlanFailed, Planned
from dfplanner.serve.engine import Engine, actions_in, describe
from dfplanner.serve.metrics import Metrics
from dfplanner.serve.protocol import BUSY, CLOSE_BUSY, CLOSE_ERROR, CLOSE_GOING_AWAY, DEFAULT_PORT, MAX_BYTES, packb
from dfplanner.serve.session import Session
from dfplanner.types import DFPlannerError

log = logging.getLogger("dfplanner.serve")
wire_log = logging.getLogger("dfplanner.serve.wire")  # websockets' own words: a port scan is a traceback there


@dataclass(frozen=True)
class ServeConfig:
    """Where the server listens, and what it grants its clients."""

    host: str = "127.0.0.1"
    """Address to listen at; anything but this machine's own is open to everybody who can reach it."""
    port: int = DEFAULT_PORT
    """0: a free one, which is printed."""
    max_connections: int = 128
    """Clients at a time; others are told that the server is busy."""
    max_queue: int = 128
    """Requests that may wait for the planner."""
    max_batch: int = 64
    """Requests planned in one call."""
    window_ms: float = 2.0
    """How long the first request of a batch waits for others."""
    max_bytes: int = MAX_BYTES
    """Bytes of a request."""
    ping_s: float = 20.0
    """Seconds between pings, and until a client that does not answer one is dropped."""
    send_timeout_s: float = 5.0
    """Seconds until a client that does not take its reply is dropped."""
    drain_s: float = 10.0
    """Seconds that requests under way get to finish when the server is told to stop."""
    origins: tuple[str, ...] = ()
    """Web pages that may connect; programs, which name no origin, always may."""
    seed: int | None = None
    """Of the planner's noise; by default new ones each time."""

    def __post_init__(self) -> None:
        least = {"port": 0, "max_connections": 1, "max_queue": 1, "max_batch": 1, "window_ms": 0, "max_bytes": 1024}
        for name, low in {**least, "ping_s": 0.01, "send_timeout_s": 0.01, "drain_s": 0}.items():
            if not getattr(self, name) >= low:
                raise DFPlannerError(f"{name} is {getattr(self, name)}; expected at least {low}")
        if self.port > 65535 or (self.seed is not None and not 0 <= self.seed < 2**63):
            raise DFPlannerError(f"port {self.port} and seed {self.seed} came; expected at most 65535, and 0 to 2^63")


class PlanServer:
    """Serves an engine's plans until it is told to stop. All methods but ``stop`` belong to one event loop."""

    def __init__(self, engine: Engine, config: ServeConfig | None = None) -> None:
        self.config = config or ServeConfig()
        self.metrics = Metrics()
        warm = engine.warm_up()
        self.spec, self.horizon = engine.planner.spec, actions_in(warm)
        if self.horizon < 1:
            raise DFPlannerError("this planner denoises no actions; set action_chunks to at least 1")
        self.metadata = describe(engine, warm, self.horizon)
        self.port = 0
        """Where it listens, once it does."""
        self.draining = False
        self._open: dict[ServerConnection, bool] = {}
        """Connections, and whether a request of theirs is under way."""
        self._pending: set[asyncio.Future[Planned]] = set()
        self._hurry = False
        """Whether requests under way are given up."""
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batcher = Batcher(
            engine,
            self.metrics,
            window_s=1e-3 * self.config.window_ms,
            max_batch=self.config.max_batch,
            max_queue=self.config.max_queue,
            seed=self.config.seed,
            askers=lambda: len(self._open),
        )

    @property
    def url(self) -> str:
        """Where clients connect."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"ws://{host}:{self.port}"

    def stop(self) -> None:
        """Asks the server to drain and return from ``run``; may be called from any thread."""
        if self._loop:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self, ready: Callable[[PlanServer], None], signals: bool = False) -> None:
        """Listens, calls ``ready``, serves until ``stop`` (or a signal), drains. Raises OSError if it cannot listen."""
        self._loop, c = asyncio.get_running_loop(), self.config
        try:
            async with serve(
                self._client,
                c.host,
                c.port,
                process_request=self._http,
                compression=None,
                max_size=2 * c.max_bytes,  # what is a little too large gets an answer, what is more is cut off
                max_queue=1,
                ping_interval=c.ping_s,
                ping_timeout=c.ping_s,
                open_timeout=5,
                close_timeout=2,
                origins=[None, *(Origin(o) for o in c.origins)],
                logger=wire_log,
            ) as listener:
                self.port = next(iter(listener.sockets)).getsockname()[1]
                for sig in (signal.SIGTERM, signal.SIGINT) if signals else ():
                    with contextlib.suppress(NotImplementedError):  # Windows
                        self._loop.add_signal_handler(sig, self._stop.set)
                ready(self)
                await self._stop.wait()
                await self._drain(listener)
        finally:
            self._batcher.stop(0)

    async def _drain(self, listener: Server) -> None:
        """New clients are refused, idle ones sent away, the others answered first; all within ``drain_s``."""
        self.draining = True
        end = time.monotonic() + self.config.drain_s
        going = [asyncio.create_task(self._say_goodbye(ws)) for ws, busy in self._open.items() if not busy]
        while self._open and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self._hurry = True
        for future in self._pending:
            future.cancel()
        await asyncio.sleep(0)
        for ws in list(self._open):
            ws.transport.abort()
        await asyncio.gather(*going)
        if not await asyncio.to_thread(self._batcher.stop, max(0.0, end - time.monotonic())):
            log.warning("the planner did not finish in %g s; it is left behind", self.config.drain_s)
        listener.close()

    async def _say_goodbye(self, ws: ServerConnection) -> None:
        await ws.close(CLOSE_GOING_AWAY, "the server shuts down")

    def _http(self, ws: ServerConnection, request: Request) -> Response | None:
        """Answers what is not a WebSocket, and refuses a handshake while there is no room."""
        path = request.path.split("?")[0]
        if path == "/healthz":
            return ws.respond(503, "draining\n") if self.draining else ws.respond(200, "OK\n")
        if path == "/metrics":
            response = ws.respond(200, self.metrics.text())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = self.metrics.content_type
            return response
        reason = self._no_room()
        if reason is None:
            return None
        self.metrics.rejects.labels("draining" if self.draining else "connections").inc()
        response = ws.respond(503, f"{BUSY}{reason}\n")
        response.headers["Retry-After"] = "1"
        return response

    def _no_room(self) -> str | None:
        if self.draining:
            return "the server shuts down; try another, or later"
        if len(self._open) >= self.config.max_connections:
            return f"{len(self._open)} clients are connected; try again later"
        return None

    async def _client(self, ws: ServerConnection) -> None:
        """One connection from its greeting to its end."""
        reason = self._no_room()
        if reason:  # it came while others were shaking hands
            self.metrics.rejects.labels("connections").inc()
            await self._refuse(ws, f"{BUSY}{reason}", CLOSE_BUSY)
            return
        session = Session(self.spec, self.horizon, self.config.max_bytes)
        self._open[ws] = False
        self.metrics.connections.set(len(self._open))
        try:
            if await self._send(ws, packb(self.metadata)):
                await self._converse(ws, session)
        except ConnectionClosed:
            pass
        finally:
            self._open.pop(ws, None)
            self.metrics.connections.set(len(self._open))

    async def _converse(self, ws: ServerConnection, session: Session) -> None:
        previous_ms: float | None = None
        while not self.draining:
            frame = await ws.recv()
            self._open[ws], start = True, time.perf_counter()
            answered = await self._answer(ws, session, frame, start, previous_ms)
            self._open[ws] = False
            if not answered:
                return
            took = time.perf_counter() - start
            self.metrics.latency.observe(took)
            previous_ms = 1e3 * took
        await self._say_goodbye(ws)

    async def _answer(
        self, ws: ServerConnection, session: Session, frame: bytes | str, start: float, previous_ms: float | None
    ) -> bool:
        """Whether the request was answered with a plan; otherwise the connection is over."""
        code = CLOSE_ERROR
        try:
            planned = await self._plan(session, frame)
            timing = {"infer_ms": planned.infer_ms, "queue_ms": planned.queue_ms, "batch": planned.batch}
            if previous_ms is not None:
                timing["prev_total_ms"] = previous_ms
            sent = await self._send(ws, packb({**session.reply(planned.plan), "server_timing": timing}))
            self.metrics.requests.labels("ok" if sent else "unsent").inc()
            return sent
        except Busy as e:
            self.metrics.rejects.labels("draining" if self.draining else "queue").inc()
            outcome, code, text = "busy", CLOSE_BUSY, f"{BUSY}{e}"
        except PlanFailed as e:
            outcome, text = "failed", str(e)
        except DFPlannerError as e:
            outcome, text = "invalid", str(e)
        except Exception as e:
            log.exception("a request could not be answered")
            outcome, text = "failed", f"the server failed ({type(e).__name__}); its log says more"
        self.metrics.requests.labels(outcome).inc()
        await self._refuse(ws, text, code)
        return False

    async def _plan(self, session: Session, frame: bytes | str) -> Planned:
        future = asyncio.wrap_future(self._batcher.submit(session.read(frame)))
        self._pending.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            if self._hurry:
                raise PlanFailed(
                    "the server shut down before the plan was made; connect to another, or later"
                ) from None
            raise
        finally:
            self._pending.discard(future)

    async def _refuse(self, ws: ServerConnection, text: str, code: int) -> None:
        if await self._send(ws, text):
            await ws.close(code, "the text before says why")

    async def _send(self, ws: ServerConnection, message: bytes | str) -> bool:
        """Whether the client took the message in time; one that does not is dropped."""
        try:
            await asyncio.wait_for(ws.send(message), self.config.send_timeout_s)
            return True
        except (asyncio.TimeoutError, ConnectionClosed):
            ws.transport.abort()
            return False


def serve_forever(engine: Engine, config: ServeConfig, ready: Callable[[PlanServer], None]) -> None:
    """Serves until SIGTERM or SIGINT; ``ready`` is called once clients can connect."""

    async def main() -> None:
        await PlanServer(engine, config).run(ready, signals=True)

    asyncio.run(main())


@contextlib.contextmanager
def running(engine: Engine, config: ServeConfig | None = None) -> Iterator[PlanServer]:
    """A server on a thread of this process while the block lasts, for tests and measurements; on any free port."""
    config = config or ServeConfig(port=0)
    there, servers, failures = threading.Event(), [], []

    def ready(server: PlanServer) -> None:
        servers.append(server)
        there.set()

    async def main() -> None:
        await PlanServer(engine, config).run(ready)

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as e:
            failures.append(e)
        finally:
            there.set()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    there.wait()
    if failures:
        raise failures[0]
    try:
        yield servers[0]
    finally:
        servers[0].stop()
        thread.join(config.drain_s + 10)
