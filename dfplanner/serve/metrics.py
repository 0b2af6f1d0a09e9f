"""What the server counts, in Prometheus' text format, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OUTCOMES = ("ok", "invalid", "failed", "busy", "unsent")
"""Answered; a message that makes no sense; the planner failed; refused for want of room; the client did not take it."""
REJECTS = ("connections", "queue", "draining")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Counters and histograms of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.requests = Counter("dfplanner_requests", "Requests by outcome", ["outcome"], registry=r)
        self.rejects = Counter("dfplanner_rejects", "Connections and requests refused", ["reason"], registry=r)
        self.latency = Histogram(
            "dfplanner_request_seconds", "From a request's arrival to its reply's sending", buckets=_SECONDS, registry=r
        )
        self.planning = Histogram("dfplanner_plan_seconds", "One call of the planner", buckets=_SECONDS, registry=r)
        self.batch = Histogram(
            "dfplanner_batch_size", "Requests planned in one call", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=r
        )
        self.connections = Gauge("dfplanner_connections", "Open connections", registry=r)
        self.waiting = Gauge("dfplanner_queue", "Requests waiting for the planner", registry=r)
        for outcome in OUTCOMES:  # a series that begins at zero can be alerted on
            self.requests.labels(outcome)
        for reason in REJECTS:
            self.rejects.labels(reason)

    def text(self) -> str:
        """All of it."""
        return generate_latest(self.registry).decode()
