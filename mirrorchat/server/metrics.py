"""The metrics for Prometheus at `/metrics`: one registry per app, labels from fixed lists, and no data of callers.

`observe` counts a request at its end. The present state (queue, batch, the chat APIs' answers) is read from the
admission and the engines at each scrape.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mirrorchat.engines import Batched, CountsAnswers, Engines, Language
from mirrorchat.errors import MirrorChatError
from mirrorchat.turn.admission import Admission

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0)
REAL_TIME_FACTORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)


@dataclass
class Observed:
    """One request that has ended. Times are in seconds, None for stages that it did not reach."""

    route: str
    outcome: str
    total_s: float
    stages_s: Mapping[str, float] = field(default_factory=dict)
    queue_s: float | None = None
    first_audio_s: float | None = None
    audio_in_s: float = 0.0
    audio_out_s: float = 0.0
    detected_language: Language | None = None

    @property
    def real_time_factor(self) -> float | None:
        """Return the seconds of work for each second of speech; below 1 synthesis is faster than playback."""
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
        self._queue_s = self._histogram("queue_wait_seconds", "Time in the queue of admitted turns.")
        self._factor = Histogram(
            "mirrorchat_real_time_factor", "Seconds of work for each second of speech, by turn.",
            buckets=REAL_TIME_FACTORS, registry=self.registry,
        )  # fmt: skip
        self._audio_s = Counter(
            "mirrorchat_audio_seconds", "Seconds of questions (in) and of speech made (out).",
            ["direction"], registry=self.registry,
        )  # fmt: skip
        self._detected = Counter(
            "mirrorchat_detected_languages", "Requests whose language was detected, by language.",
            ["language"], registry=self.registry,
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
        if seen.detected_language is not None:
            self._detected.labels(seen.detected_language.code).inc()

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(_WithoutCreated(self.registry))

    def _histogram(self, name: str, help: str, labels: list[str] | None = None) -> Histogram:
        return Histogram(f"mirrorchat_{name}", help, labels or [], buckets=SECONDS, registry=self.registry)


class _WithoutCreated(CollectorRegistry):
    """A registry without the creation time of each series: it would double the series, and nobody needs it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Scrape(Collector):
    """The metrics that are read at the scrape."""

    def __init__(self, metrics: Metrics, admission: Admission) -> None:
        self._metrics = metrics
        self._admission = admission

    def describe(self) -> Iterator[Metric]:
        return iter(())  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        engines = self._metrics.engines
        yield _gauge("ready", "1 while requests are answered.", float(self._is_ready(engines)))
        yield from self._load()
        yield from _batches(engines)
        yield from _chat_apis(engines)

    def _is_ready(self, engines: Engines | None) -> bool:
        try:
            if engines is not None:
                engines.check_ready()
        except MirrorChatError:
            return False
        return engines is not None and not self._admission.closed

    def _load(self) -> Iterator[Metric]:
        stats = self._admission.stats()
        yield _gauge("turns_running", "Turns that are running.", stats.running)
        yield _gauge("turns_allowed", "Turns that may run concurrently, as playback now allows.", stats.slots)
        yield _gauge("turns_left_over", "Ended turns whose native calls still run.", stats.orphans)
        yield _gauge("queue_depth", "Callers that wait for a slot.", stats.waiting)
        rejections = CounterMetricFamily(
            "mirrorchat_rejections", "Callers that were not admitted, by reason.", labels=["reason"]
        )
        for reason, count in stats.refusals.items():
            rejections.add_metric([reason.value], count)
        yield rejections


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mirrorchat_{name}", help, value=value)


def _batches(engines: Engines | None) -> Iterator[Metric]:
    labels = ["engine"]
    running = GaugeMetricFamily("mirrorchat_batch_occupancy", "Sentences that are being decoded.", labels=labels)
    slots = GaugeMetricFamily("mirrorchat_batch_rows", "Sentences that can be decoded at once.", labels=labels)
    waiting = GaugeMetricFamily("mirrorchat_batch_waiting", "Sentences that wait for a KV-cache slot.", labels=labels)
    tokens = CounterMetricFamily("mirrorchat_tokens", "Audio tokens decoded; its rate is tokens/s.", labels=labels)
    synthesizers = {engine.info.name: engine for engine in engines.synthesizers.values()} if engines else {}
    for name, engine in synthesizers.items():
        if isinstance(engine, Batched):
            stats = engine.stats()
            running.add_metric([name], stats.running)
            slots.add_metric([name], stats.slots)
            waiting.add_metric([name], stats.waiting)
            tokens.add_metric([name], stats.tokens)
    yield from (running, slots, waiting, tokens)


def _chat_apis(engines: Engines | None) -> Iterator[Metric]:
    """Yield the answers and the failures of the chat APIs, by their positions in chatgpt_apis."""
    labels = ["position"]
    answers = CounterMetricFamily("mirrorchat_chat_answers", "Whole answers of each chat API.", labels=labels)
    failures = CounterMetricFamily("mirrorchat_chat_failures", "Failures of each chat API.", labels=labels)
    if engines is not None and isinstance(engines.chat, CountsAnswers):
        for family, counts in ((answers, engines.chat.answers()), (failures, engines.chat.failures())):
            for position, count in enumerate(counts, start=1):
                family.add_metric([str(position)], count)
    yield from (answers, failures)
