"""The OpenAPI document against the running server: schemathesis sends what it allows, and what it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.places import ROOT
from support.running_server import RunningServer

from mirrorchat.app import create_app
from mirrorchat.errors import MirrorChatError
from mirrorchat.openai.openapi import openai_paths
from mirrorchat.server.openapi import document as openapi
from mirrorchat.server.openapi.parts import STATUSES
from mirrorchat.settings import load_settings

STARTUP_ONLY = {"configuration_error", "install_failed", "source_failed"}
NOBODY_READS = {"client_gone"}
ANSWERS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def every_error(base: type[MirrorChatError] = MirrorChatError) -> Iterator[type[MirrorChatError]]:
    yield base
    for kind in base.__subclasses__():
        yield from every_error(kind)


def document() -> Any:
    return openapi.document(load_settings(folder=ROOT / "tests"), openai_paths())


def test_every_status_of_the_error_tree_is_described() -> None:
    statuses = {kind.status for kind in every_error() if kind.code not in STARTUP_ONLY | NOBODY_READS}
    assert statuses <= set(STATUSES)


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    app = create_app(load_settings(folder=tmp_path, models_dir=str(tmp_path)))
    routes = {
        (rule.rule.replace("<", "{").replace(">", "}").replace("path:", ""), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS") and not rule.rule.startswith("/static/")
    }
    described = {(path, method) for path, item in document()["paths"].items() for method in item}
    app.extensions["mirrorchat"].wait_until_loaded(60)
    app.extensions["mirrorchat"].close()
    assert routes == described


def cases(mode: schemathesis.GenerationMode, url: str) -> Iterator[Any]:
    """Yield each operation of the document that `url` serves with a strategy for its requests."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing in it can be wrong
        yield operation.label, operation.as_strategy(generation_mode=mode)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_the_server_answers_as_the_document_says(
    embedded_server: RunningServer, mode: schemathesis.GenerationMode
) -> None:
    """Whatever is sent, allowed or not: a status that is described, its headers, and a body of its shape."""
    seen = []
    for label, strategy in cases(mode, embedded_server.url):

        @hypothesis_settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def ask(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=ANSWERS, timeout=60)

        ask()
        seen.append(label)
    assert "POST /process_audio" in seen


def test_a_question_is_answered_as_the_document_says(embedded_server: RunningServer) -> None:
    """In every form of answer: the fuzzer's recordings are never audio."""
    schema = schemathesis.openapi.from_url(f"{embedded_server.url}/openapi.json")
    operation = schema["/process_audio"]["POST"]
    question = (ROOT / "examples" / "question.wav").read_bytes()
    for stream, form in [
        ("false", "wav"),
        ("false", "json"),
        *[("true", form) for form in ("pcm", "mp3", "opus", "sse")],
    ]:
        response = requests.post(
            f"{embedded_server.url}/process_audio",
            files={"audio": ("question.wav", question)},
            data={"language": "english", "stream": stream, "response_format": form},
            timeout=60,
        )
        assert response.status_code == 200
        operation.validate_response(response)
