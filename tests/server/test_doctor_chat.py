"""Each chat API tried: what is sent, what is said of every way to fail, and that no key or reply is shown."""

import json
from dataclasses import asdict

import pytest
from support.chat_checks import KEY, api_at, no_leaks, plain_environment  # noqa: F401 (fixtures)
from support.chat_server import (
    DONE,
    Behaviour,
    ChatServer,
    Exchange,
    RefusingPort,
    SilentPort,
    answer,
    body,
    chunked_stream,
    delta,
    hang_after,
    hang_after_headers,
    html,
    not_streamed,
    raw_stream,
    reasoning,
    status,
)
from support.ollama import OllamaServer

from mirrorchat.chat.ollama import HOST_VARIABLE
from mirrorchat.cli.doctor.chat import chat_findings, source_finding
from mirrorchat.cli.doctor.findings import Finding, State
from mirrorchat.settings import ChatApi, Settings


def tried(*apis: ChatApi, limit_s: float = 20.0) -> list[Finding]:
    found = chat_findings(apis, limit_s=limit_s, at_once=8)
    shown = json.dumps([asdict(finding) for finding in found])
    assert KEY not in shown and "pa55word" not in shown and "quer7" not in shown
    return found


def test_one_token_is_asked_for_and_the_reply_not_shown() -> None:
    with ChatServer(answer("Certainly.")) as server:
        (found,) = tried(api_at(server, model="gpt-x", max_tokens=500, url=f"{server.url}?token=quer7"))
        (request,) = server.requests
    assert request.body["max_tokens"] == 1 and request.body["model"] == "gpt-x"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert found.state is State.OK and "Certainly" not in found.found
    assert found.values["host"] == f"127.0.0.1:{server.port}" and found.values["model"] == "gpt-x"
    assert found.values["status"] == 200 and isinstance(found.values["ms"], int)


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(""),
        not_streamed("Yes"),
        chunked_stream(delta("<think>"), delta(None, "length"), DONE),
        hang_after("<think>", "Hm, "),
        raw_stream(reasoning("Hm, "), pause_s=30.0),
    ],
    ids=["no text in one token", "not streamed", "reasoning in one token", "reasoning", "reasoning in its field"],
)
def test_an_answer_of_any_form_will_do(behaviour: Behaviour) -> None:
    with ChatServer(behaviour) as server:
        assert [finding.state for finding in tried(api_at(server))] == [State.OK]


def test_an_api_that_takes_no_max_tokens_is_asked_as_the_server_asks() -> None:
    def picky(exchange: Exchange) -> None:
        (status(400) if "max_tokens" in exchange.request.body else answer("Yes."))(exchange)

    with ChatServer(picky) as server:
        (found,) = tried(api_at(server))
        assert found.state is State.OK and len(server.requests) == 2


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(401, "key"), (403, "key"), (404, "/v1"), (429, "credit"), (500, "log"), (302, "redirect"), (418, "status")],
)
def test_a_status_has_its_remedy(code: int, remedy: str) -> None:
    with ChatServer(status(code)) as server:
        (found,) = tried(api_at(server))
    assert found.state is State.PROBLEM and found.values["status"] == code
    assert f"HTTP {code}" in found.found and remedy in found.remedy


def test_other_failures_have_theirs() -> None:
    with RefusingPort() as refusing, ChatServer(html) as page, ChatServer() as plain, SilentPort() as silent:
        found = tried(
            api_at(refusing),
            api_at(page),
            api_at(plain, url=plain.url.replace("http:", "https:")),
            api_at(silent, timeout_s=0.5),
            ChatApi("http://someone:pa55word@no-such-host.invalid/v1?token=quer7", KEY),
            ChatApi("http://127.0.0.1:1/v1", KEY, headers={"Bad Name": "\n"}),
        )
    assert {finding.state for finding in found} == {State.PROBLEM}
    remedies = [
        "start the API's server",
        "sign-in page",
        "check https",
        "first_token_timeout_s",
        "getent hosts no-such",
    ]
    for finding, remedy in zip(found, [*remedies, "cannot be sent"], strict=True):
        assert remedy in finding.remedy and finding.values["status"] is None


def test_the_words_of_an_api_are_told() -> None:
    with ChatServer(body(b'{"code": 401, "msg": "The token has expired."}')) as server:
        (found,) = tried(api_at(server))
    assert "The token has expired." in found.found and "key" in found.remedy


def test_all_are_tried_at_once_and_none_is_waited_for_beyond_the_limit() -> None:
    with ChatServer(hang_after_headers) as first, ChatServer(hang_after_headers) as second, ChatServer() as third:
        found = tried(api_at(first), api_at(second), api_at(third), limit_s=1.0)
        assert [finding.state for finding in found] == [State.WARNING, State.WARNING, State.OK]  # one works
        assert "no answer within 1 s" in found[0].found
        assert first.requests[0].closed_early.wait(10.0) and second.requests[0].closed_early.wait(10.0)


# What sets the list


def test_the_source_and_the_hosts_are_named_and_no_secret() -> None:
    urls = ("https://user:pa55word@one.example/p4th/v1?token=quer7", "http://two.example:8000", "https://one.example")
    settings = Settings(chatgpt_apis=tuple(ChatApi(url, KEY) for url in urls), chat_source="chatgpt_apis")
    found = source_finding(settings, network=True)
    assert found.state is State.OK and found.found == (
        "chatgpt_apis is set; words are sent to one.example, two.example:8000")  # fmt: skip
    assert found.values == {"source": "chatgpt_apis", "hosts": "one.example, two.example:8000"}


def test_a_list_that_is_empty_on_purpose_is_no_warning() -> None:
    with OllamaServer("qwen2.5:7b") as ollama, pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOST_VARIABLE, f"127.0.0.1:{ollama.port}")
        found = source_finding(Settings(chat_source="chatgpt_apis"), network=True)
        assert ollama.asked == []
    assert found.state is State.OK and "chatgpt_apis is empty" in found.found and "parrot" in found.found


def test_where_nothing_is_set_the_remedy_is_the_line_for_the_ollama_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaServer("qwen2.5:7b") as ollama:
        monkeypatch.setenv(HOST_VARIABLE, f"127.0.0.1:{ollama.port}")
        found = source_finding(Settings(), network=True)
        line = f"MIRRORCHAT_CHAT_URL=http://127.0.0.1:{ollama.port} MIRRORCHAT_CHAT_MODEL=qwen2.5:7b scripts/serve"
        assert found.state is State.WARNING and "no chat API is set" in found.found and f"`{line}`" in found.remedy
        assert ollama.asked == ["GET /api/tags"]
        assert "OPENAI_API_KEY" in source_finding(Settings(), network=False).remedy
        assert len(ollama.asked) == 1
    assert "OPENAI_API_KEY" in source_finding(Settings(), network=True).remedy
