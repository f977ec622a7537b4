"""What is watched: /metrics, the log's line of each request, and the dashboard that shows them."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from flask import Flask, Response
from support.chat_server import ChatServer, answer, hang_after, status
from support.checks import wait_for
from support.places import ROOT
from support.running_server import RunningServer
from support.scraping import samples, scrape
from support.speech import say_wav

from mirrorchat.app import create_app
from mirrorchat.engines import BatchStats
from mirrorchat.errors import ServerBusy, ShuttingDown
from mirrorchat.server.metrics import Metrics, Observed
from mirrorchat.server.runtime import request_record
from mirrorchat.settings import Settings
from mirrorchat.turn.admission import Admission

DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
SUFFIX = re.compile(r"_(bucket|sum|count)$")
KEY = "a-key-of-the-server-0123456789"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """An app in this process, its embedded engines loaded, with a stream of ours beside its own routes."""
    app = create_app(Settings(models_dir=tmp_path_factory.mktemp("models"), threads=1))
    app.add_url_rule("/stream/<end>", view_func=stream)
    runtime = app.extensions["mirrorchat"]
    assert runtime.wait_until_loaded(60)
    yield app
    runtime.close()


def test_what_happened_is_counted(tmp_path: Path) -> None:
    with (
        ChatServer(status(500)) as bad,
        ChatServer(answer("It is a fine day. So it is.")) as good,
        RunningServer(tmp_path, chatgpt_apis=[bad.api(), good.api()], chat_cooldown_s=0.0) as server,
    ):
        for _ in range(2):
            assert server.ask(say_wav("hello there"), "english", text="a private zebra").status_code == 200
        server.ask(b"no audio", "english")
        requests.get(f"{server.url}/some/private/path", timeout=5)
        seen = scrape(server.url)
        text = requests.get(f"{server.url}/metrics", timeout=5).text
        log = server.log
    assert seen["mirrorchat_requests_total{outcome=ok,route=process_audio}"] == 2
    assert seen["mirrorchat_requests_total{outcome=unsupported_audio,route=process_audio}"] == 1
    assert seen["mirrorchat_requests_total{outcome=not_found,route=none}"] == 1
    assert seen["mirrorchat_chat_failures_total{position=1}"] == 2
    assert seen["mirrorchat_chat_failures_total{position=2}"] == 0
    assert seen["mirrorchat_chat_answers_total{position=1}"] == 0
    assert seen["mirrorchat_chat_answers_total{position=2}"] == 2
    for stage in ("voice", "answer", "speak"):
        assert seen[f"mirrorchat_stage_seconds_count{{stage={stage}}}"] == 2
        assert seen[f"mirrorchat_stage_seconds_sum{{stage={stage}}}"] > 0
    assert seen["mirrorchat_stage_seconds_count{stage=decode}"] == 3
    assert seen["mirrorchat_first_audio_seconds_count"] == seen["mirrorchat_real_time_factor_count"] == 2
    assert 0 < seen["mirrorchat_real_time_factor_sum"] < 4
    assert seen["mirrorchat_queue_wait_seconds_count"] == 3
    assert 1.0 < seen["mirrorchat_audio_seconds_total{direction=in}"] < 10.0
    assert 2.0 < seen["mirrorchat_audio_seconds_total{direction=out}"] < 20.0
    assert (seen["mirrorchat_ready"], seen["mirrorchat_turns_running"], seen["mirrorchat_queue_depth"]) == (1, 0, 0)
    assert "zebra" not in text and "private" not in text and "_created" not in text
    check_lines(log)


def check_lines(log: str) -> None:
    """Assert what the log says of the requests of the test above."""
    lines = [line.partition(" INFO ")[2] for line in log.splitlines() if "request=" in line]
    turns = [dict(pair.split("=", 1) for pair in line.split(" ")) for line in lines if "process_audio" in line]
    assert [(turn["status"], turn["outcome"]) for turn in turns] == [
        ("200", "ok"), ("200", "ok"), ("415", "unsupported_audio")]  # fmt: skip
    first, _, refused = turns
    assert {"queue_ms", "decode_ms", "voice_ms", "answer_ms", "speak_ms", "first_audio_ms"} < set(first)
    assert int(first["ms"]) >= int(first["first_audio_ms"]) > 0
    assert float(first["audio_in_s"]) > 0.3 and float(first["audio_out_s"]) > 1.0
    assert int(first["bytes_in"]) > 10_000 and int(first["bytes_out"]) > 40_000
    assert len(first["request"]) == 32 and first["method"] == "POST"
    assert "first_audio_ms" not in refused and "answer_ms" not in refused
    assert "zebra" not in log and "private" not in log


def test_a_full_house_is_seen(tmp_path: Path) -> None:
    with (
        ChatServer(hang_after("One sentence is here. ")) as chat,
        RunningServer(tmp_path, max_turns=1, max_waiting=0, chatgpt_apis=[chat.api()], turn_deadline_s=4.0) as server,
        requests.Session() as session,
    ):
        thread = Thread(target=server.ask, args=(say_wav("hello"), "english"), kwargs={"text": "Hi"})
        thread.start()
        wait_for(lambda: bool(chat.requests))
        assert server.ask(say_wav("hello"), "english", text="Hi").status_code == 503
        seen = samples(session.get(f"{server.url}/metrics", timeout=5).text)
        thread.join()
        wait_for(lambda: "outcome=deadline_exceeded" in server.log)
        after = samples(session.get(f"{server.url}/metrics", timeout=5).text)
    assert (seen["mirrorchat_turns_running"], seen["mirrorchat_turns_allowed"]) == (1, 1)
    assert seen["mirrorchat_rejections_total{reason=queue_full}"] == 1
    assert seen["mirrorchat_requests_total{outcome=server_busy,route=process_audio}"] == 1
    assert after["mirrorchat_requests_total{outcome=deadline_exceeded,route=process_audio}"] == 1
    assert after["mirrorchat_turns_running"] == 0


def test_two_apps_count_apart_and_metrics_need_a_key_where_there_are_keys(app: Flask, tmp_path: Path) -> None:
    other = create_app(Settings(models_dir=tmp_path, api_keys=(KEY,)))
    try:
        client = other.test_client()
        client.get("/healthz")
        assert client.get("/metrics").status_code == 401
        response = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"})
        assert response.status_code == 200  # also while the engines load
        text = response.get_data(as_text=True)
    finally:
        other.extensions["mirrorchat"].close()
    assert KEY not in text
    name = "mirrorchat_requests_total{outcome=ok,route=healthz}"
    assert samples(text)[name] == 1
    assert name not in samples(app.test_client().get("/metrics").get_data(as_text=True))


def test_labels_stay_bounded_whatever_is_asked(app: Flask) -> None:
    client = app.test_client()
    for number in range(20):
        client.open(f"/nowhere{number}", method=f"VERB{number}")
    text = client.get("/metrics").get_data(as_text=True)
    assert "nowhere" not in text and "VERB" not in text
    assert sum(line.startswith("mirrorchat_requests_total{") and "none" in line for line in text.splitlines()) <= 2


def test_readiness_and_metrics_say_so_when_the_server_is_being_stopped(tmp_path: Path) -> None:
    app = create_app(Settings(models_dir=tmp_path, threads=1))
    runtime = app.extensions["mirrorchat"]
    try:
        client = app.test_client()
        assert samples(client.get("/metrics").get_data(as_text=True))["mirrorchat_ready"] == 0  # they load
        assert runtime.wait_until_loaded(60)
        assert client.get("/readyz").status_code == 200
        assert samples(client.get("/metrics").get_data(as_text=True))["mirrorchat_ready"] == 1
        runtime.stop_admission()
        refused = client.get("/readyz")
        assert refused.status_code == 503 and refused.get_json()["error"]["code"] == "shutting_down"
        assert refused.headers["Retry-After"]
        assert samples(client.get("/metrics").get_data(as_text=True))["mirrorchat_ready"] == 0
    finally:
        runtime.close()


def stream(end: str) -> Response:
    """Answer with a stream as the real one does: what became of it is known at its end."""
    record = request_record()
    watch = record.watch

    def events() -> Iterator[bytes]:
        yield b"one"
        watch.spoke(1.5)
        record.bytes_out += 3
        if end == "error":
            record.finished(ShuttingDown("bye"))
            record.finished(ServerBusy("later"))  # the first counts
        elif end == "whole":
            record.finished()
        yield b"two"

    return Response(events())


@pytest.mark.parametrize(("end", "outcome"), [("whole", "ok"), ("error", "shutting_down"), ("hang-up", "client_gone")])
def test_a_stream_is_written_down_at_its_end(
    app: Flask, caplog: pytest.LogCaptureFixture, end: str, outcome: str
) -> None:
    with caplog.at_level(logging.INFO, "mirrorchat"):
        response = app.test_client().get(f"/stream/{end}", buffered=False)
        chunks = iter(response.response)
        next(chunks)
        assert "request=" not in caplog.text  # its end is not known yet
        if end != "hang-up":
            list(chunks)
        response.close()
    lines = [record.getMessage() for record in caplog.records if "request=" in record.getMessage()]
    assert len(lines) == 1 and f"outcome={outcome} " in lines[0] and "status=200" in lines[0]
    assert ("audio_out_s=1.50" in lines[0]) == ("bytes_out=3" in lines[0]) == (end != "hang-up")
    seen = samples(app.extensions["mirrorchat"].metrics.render().decode())
    assert seen[f"mirrorchat_requests_total{{outcome={outcome},route=stream}}"] == 1


def test_a_batched_engine_and_its_limits_are_read_at_the_scrape() -> None:
    class Batch:
        info = type("Info", (), {"name": "xtts"})
        tokens = 0

        def stats(self) -> BatchStats:
            self.tokens += 100
            return BatchStats(running=3, slots=8, waiting=2, tokens=self.tokens)

        def check_ready(self) -> None: ...

    metrics = Metrics(Admission(4))
    batch = Batch()
    engines: Any = type("Engines", (), {"synthesizers": {"a": batch, "b": batch}, "chat": None})
    engines.check_ready = batch.check_ready
    metrics.engines = engines
    first, second = (samples(metrics.render().decode()) for _ in range(2))
    assert first["mirrorchat_batch_occupancy{engine=xtts}"] == 3
    assert first["mirrorchat_batch_rows{engine=xtts}"] == 8
    assert first["mirrorchat_batch_waiting{engine=xtts}"] == 2
    tokens = "mirrorchat_tokens_total{engine=xtts}"
    assert second[tokens] - first[tokens] == 100  # both languages are one engine


def test_the_real_time_factor_needs_speech() -> None:
    assert Observed("r", "ok", 1.0, {"speak": 0.5}, audio_out_s=2.0).real_time_factor == 0.25
    assert Observed("r", "ok", 1.0, {"speak": 0.5}).real_time_factor is None
    assert Observed("r", "ok", 1.0, audio_out_s=2.0).real_time_factor is None


def test_the_dashboard_shows_each_metric_and_no_other(app: Flask) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {SUFFIX.sub("", name) for query in queries for name in re.findall(r"mirrorchat_\w+", query)}
    text = app.test_client().get("/metrics").get_data(as_text=True)
    there = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    assert asked == set(there)
    for query in queries:
        assert query.count("(") == query.count(")")
        for name in re.findall(r"mirrorchat_\w+", query):  # a counter is only of use as a rate
            assert ("rate(" in query) == (there[SUFFIX.sub("", name)] != "gauge")
            assert name.endswith("_bucket") == (there[SUFFIX.sub("", name)] == "histogram")


def test_the_dashboards_panels_have_places_and_names_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) == 23
