"""What Prometheus sees at `/metrics`: one registry per app, values of labels from fixed lists, nothing of a caller.

What happens is counted when a request ends (`observe`); what is going on (queue, batch, failures of the chat APIs) is
read from the admission and the engines when Prometheus asks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mirrorchat.engines import Batched, BatchStats, CountsFailures, Engines
from mirrorchat.errors import MirrorChatError
from mirrorchat.turn.admission import Admission

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0)
REAL_TIME_FACTORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)


@dataclass
class Observed:
    """One request that has ended. Seconds throughout; None where it did not get that far."""

    route: str
    outcome: str
    total_s: float
    stages_s: Mapping[str, float] = field(default_factory=dict)
    queue_s: float | None = None
    first_audio_s: float | None = None
    audio_in_s: float = 0.0
    audio_out_s: float = 0.0

    @property
    def real_time_factor(self) -> float | None:
        """Return the seconds of work for each second of speech: below 1 it is made faster than it plays."""
        return self.stages_s["speak"] / self.audio_out_s if self.audio_out_s > 0 and "speak" in self.stages_s else None


class Metrics:
    """The metrics of one app. Thread-safe."""

    def __init__(self, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        self.engines: Engines | None = None  # once they are loaded
        self._requests = Counter(
            "mirrorchat_requests", "Requests by route and outcome: ok, or the code of the error.",
            ["route", "outcome"], registry=self.registry,
        )  # fmt: skip
        self._request_s = self._histogram("request_seconds", "From a request's arrival to its end.", ["route"])
        self._stage_s = self._histogram("stage_seconds", "Time in each stage of a turn; stages overlap.", ["stage"])
        self._first_audio_s = self._histogram(
            "first_audio_seconds", "From a request's arrival until its first speech was made."
        )
        self._queue_s = self._histogram("queue_wait_seconds", "Wait of those who were admitted.")
        self._factor = Histogram(
            "mirrorchat_real_time_factor", "Seconds of work for each second of speech, by turn.",
            buckets=REAL_TIME_FACTORS, registry=self.registry,
        )  # fmt: skip
        self._audio_s = Counter(
            "mirrorchat_audio_seconds", "Seconds of questions (in) and of speech made (out).",
            ["direction"], registry=self.registry,
        )  # fmt: skip
        self.registry.register(_Scrape(self, admission))

    def observe(self, seen: Observed) -> None:
        """Count a request that has ended."""
        self._requests.labels(seen.route, seen.outcome).inc()
        self._request_s.labels(seen.route).observe(seen.total_s)
        for stage, seconds in seen.stages_s.items():
            self._stage_s.labels(stage).observe(seconds)
        for histogram, value in (
            (self._first_audio_s, seen.first_audio_s),
            (self._queue_s, seen.queue_s),
            (self._factor, seen.real_time_factor),
        ):
            if value is not None:
                histogram.observe(value)
        self._audio_s.labels("in").inc(seen.audio_in_s)
        self._audio_s.labels("out").inc(seen.audio_out_s)

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(_WithoutCreated(self.registry))

    def _histogram(self, name: str, what: str, labels: list[str] | None = None) -> Histogram:
        return Histogram(f"mirrorchat_{name}", what, labels or [], buckets=SECONDS, registry=self.registry)


class _WithoutCreated(CollectorRegistry):
    """A registry without the time at which each series began: nobody plots it, and it would double the series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Scrape(Collector):
    """What is read at the moment of the scrape."""

    def __init__(self, metrics: Metrics, admission: Admission) -> None:
        self._metrics = metrics
        self._scheduler = admission

    def describe(self) -> Iterator[Metric]:
        return iter(())  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        engines = self._metrics.engines
        yield _gauge("ready", "1 while requests are answered.", float(self._is_ready(engines)))
        yield from self._admission()
        yield from _batches(engines)
        yield from _failures(engines)

    def _is_ready(self, engines: Engines | None) -> bool:
        try:
            if engines is not None:
                engines.check_ready()
        except MirrorChatError:
            return False
        return engines is not None and not self._scheduler.closed

    def _admission(self) -> Iterator[Metric]:
        stats = self._scheduler.stats()
        yield _gauge("turns_running", "Turns that are being answered.", stats.running)
        yield _gauge("turns_allowed", "Turns that may run at once, as playback now allows.", stats.slots)
        yield _gauge("turns_left_over", "Ended turns whose native calls still run.", stats.orphans)
        yield _gauge("queue_depth", "Callers that wait for a turn.", stats.waiting)
        rejections = CounterMetricFamily(
            "mirrorchat_rejections", "Callers that were not admitted, by reason.", labels=["reason"]
        )
        for reason, count in stats.refusals.items():
            rejections.add_metric([reason.value], count)
        yield rejections


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mirrorchat_{name}", what, value=value)


def _batches(engines: Engines | None) -> Iterator[Metric]:
    synthesizers = {engine.info.name: engine for engine in engines.synthesizers.values()} if engines else {}
    stats: dict[str, BatchStats] = {
        name: engine.stats() for name, engine in synthesizers.items() if isinstance(engine, Batched)
    }
    labels = ["engine"]
    occupancy = GaugeMetricFamily("mirrorchat_batch_occupancy", "Sentences that are being decoded.", labels=labels)
    slots = GaugeMetricFamily("mirrorchat_batch_rows", "Sentences that can be decoded at once.", labels=labels)
    waiting = GaugeMetricFamily("mirrorchat_batch_waiting", "Sentences that wait for a row.", labels=labels)
    tokens = CounterMetricFamily("mirrorchat_tokens", "Audio tokens decoded; its rate is tokens/s.", labels=labels)
    for name, batch in stats.items():
        occupancy.add_metric([name], batch.running)
        slots.add_metric([name], batch.slots)
        waiting.add_metric([name], batch.waiting)
        tokens.add_metric([name], batch.tokens)
    yield from (occupancy, slots, waiting, tokens)


def _failures(engines: Engines | None) -> Iterator[Metric]:
    failures = CounterMetricFamily(
        "mirrorchat_chat_failures", "Failures of each chat API, by its position in chatgpt_apis.", labels=["position"]
    )
    if engines is not None and isinstance(engines.chat, CountsFailures):
        for position, count in enumerate(engines.chat.failures(), start=1):
            failures.add_metric([str(position)], count)
    yield failures
