"""What /metrics tells Prometheus. Counted here: requests. Read from the rows when asked: jobs. No project, key or job names."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import func, select

from stillroom.service.rows.database import Database
from stillroom.service.rows.tables import calls, jobs
from stillroom.service.watch import heartbeat

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Meter:
    """The figures of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self._seconds = Histogram(
            "http_request_duration_seconds", "Seconds a request took", labels, registry=self.registry, buckets=BOUNDS
        )
        self._counted: dict[tuple[str, str, int], Histogram] = {}
        self.streams = Counter("event_streams_total", "Event streams that were opened", registry=self.registry)
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        kind = (route, method if method in METHODS else "other", status)
        found = self._counted.get(kind)
        if found is None:
            found = self._counted[kind] = self._seconds.labels(*map(str, kind))
        found.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client: what stands in the rows."""
        with self._database.reading() as rows:
            states = rows.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status)).all()
            sums = select(
                calls.c.by, func.count(), func.sum(calls.c.tokens_in + calls.c.tokens_out), func.sum(calls.c.nano_usd)
            )
            used = rows.execute(sums.group_by(calls.c.by)).all()
            queued = select(func.min(jobs.c.created_at)).where(jobs.c.status == "queued")
            oldest: int | None = rows.execute(queued).scalar()
        by_state = GaugeMetricFamily("jobs", "Jobs by status", labels=["status"])
        for status, count in states:
            by_state.add_metric([status], count)
        yield by_state
        waiting_s = max(time.time() - oldest, 0.0) if oldest else 0.0
        yield GaugeMetricFamily("oldest_queued_job_seconds", "Since the job next in line was made", waiting_s)
        worker_s = heartbeat.age_s(self._database.path.parent)
        if worker_s is not None:
            yield GaugeMetricFamily("worker_heartbeat_age_seconds", "Since the worker's last sign of life", worker_s)
        names = (
            ("chat_calls", "Chat calls"),
            ("chat_tokens", "Tokens of chat calls"),
            ("chat_usd", "USD of chat calls"),
        )
        for place, (name, words) in enumerate(names):
            one = GaugeMetricFamily(name, f"{words} by who answered", labels=["by"])
            for by, *figures in used:
                one.add_metric([by], (figures[place] or 0) / (1e9 if name == "chat_usd" else 1))
            yield one

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
