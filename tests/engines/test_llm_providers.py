"""What providers are known to send besides plain answers, through the chat client and a real server."""

import json

import pytest
from support.chat_checks import api_at, ask, client_of, events_of, no_leaks, only_failure, plain_environment  # noqa: F401 (fixtures)
from support.chat_server import DONE, STREAM_TYPE, Behaviour, ChatServer, body, delta, raw_stream

from mirrorchat.concurrency.context import Context
from mirrorchat.engines import AnswerEnded
from mirrorchat.errors import ChatFault, ChatInterrupted

TIDES = "The moon pulls."
STREAM = delta("The moon ") + delta("pulls.") + delta(None, "stop") + DONE
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": TIDES}, "finish_reason": "stop"}]}
BOM = b"\xef\xbb\xbf"


def sent(*choices: object, **fields: object) -> bytes:
    """Return one event with these choices and further fields."""
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


def as_json(value: object, status: str = "200 OK") -> Behaviour:
    return body(json.dumps(value, indent=1).encode(), status=status)


@pytest.mark.parametrize(
    "behaviour",
    [
        *(body(json.dumps(WHOLE).encode(), status=status) for status in ("201 Created", "203 Changed")),
        body(STREAM, STREAM_TYPE, "201 Created"),
        body(json.dumps(WHOLE).encode() + b"<br />\n<b>Warning</b>: unlink()"),
        raw_stream(STREAM.replace(b"data: ", b"data: " + BOM)),
        raw_stream(STREAM.replace(b"data: ", BOM + b"data: ")),
        raw_stream(b": keep-alive\n\n" * 3 + json.dumps(WHOLE, indent=2).encode()),
        *(raw_stream(delta(TIDES) + b"data: %s\n\n" % end) for end in (b'"[DONE]"', b"[done]")),
        raw_stream(
            sent({"index": 1, "delta": {"content": "Another."}}, {"index": 0, "delta": {"content": TIDES}}) + DONE
        ),
        raw_stream(delta("The moon ") + delta("pulls.") + sent(WHOLE["choices"][0], object="chat.completion")),
        raw_stream(sent({"index": 0, "delta": {"role": "assistant", "refusal": TIDES}}) + DONE),
        as_json({"choices": [{"message": {"content": None, "refusal": TIDES}, "finish_reason": "stop"}]}),
    ],
)
def test_an_odd_answer_is_heard(behaviour: Behaviour) -> None:
    with ChatServer(behaviour) as server:
        assert ask(client_of(api_at(server))) == TIDES


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (as_json([{"error": {"code": 400, "message": "Bad key"}}]), "an error instead of an answer: Bad key"),
        (raw_stream(b'data: [{"error": {"message": "Busy"}}]\n\n'), "an error in the stream: Busy"),
        (raw_stream(b'error: {"code": 500, "message": "No slot"}\n\n'), "an error in the stream: No slot"),
        (raw_stream(b"data: error: timed out\n\n"), "an empty stream: error: timed out"),
        (body(b"You have no credit left.", "text/plain"), "neither an event stream nor JSON: You have no credit left."),
        (body(b"\x1f\x8b\x08\x00\x00\x00", "text/plain"), "neither an event stream nor JSON"),
        (
            as_json({**WHOLE, "base_resp": {"status_code": 1027, "status_msg": "output sensitive"}}),
            "an error instead of an answer: output sensitive",
        ),
        (
            as_json({"choices": [{"message": {}, "error": {"message": "Idle"}, "finish_reason": "error"}]}),
            "an error instead of an answer: Idle",
        ),
        (body(b'"Invalid token"', status="401 No"), "HTTP 401: Invalid token"),
        (body(b"404 page not found\n", "text/plain", "404 No"), "HTTP 404: 404 page not found"),
        (body(b'"m" is unknown', "text/plain", "404 No"), 'HTTP 404: "m" is unknown'),
        (
            body(
                b'id:1\nevent:error\n:HTTP_STATUS/401\ndata:{"code":"InvalidApiKey","message":"No"}\n\n',
                status="401 No",
            ),
            "HTTP 401: No",
        ),
        (raw_stream(delta(None, "PROHIBITED_CONTENT")), "its content filter removed the answer"),
        (
            raw_stream(sent({"index": 0, "delta": {"tool_calls": [{"index": 0}]}}) + delta(None, "tool_calls")),
            "a call of a tool instead of an answer",
        ),
    ],
)
def test_what_went_wrong_is_told(behaviour: Behaviour, reason: str) -> None:
    with ChatServer(behaviour) as server:
        assert only_failure(client_of(api_at(server))) == reason


@pytest.mark.parametrize("end", ["network_error", "insufficient_system_resource", "abort"])
def test_an_answer_that_the_api_gave_up_is_not_whole(end: str) -> None:
    with (
        ChatServer(raw_stream(delta("The moon ") + delta(None, end))) as server,
        pytest.raises(ChatInterrupted) as caught,
    ):
        ask(client_of(api_at(server)))
    (failure,) = caught.value.failures
    assert (failure.reason, failure.fault) == (f"an error in the stream: {end}", ChatFault.ERROR)


def test_a_call_of_a_tool_is_passed_on_only_if_tools_were_offered() -> None:
    call = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    calls = raw_stream(sent({"index": 0, "delta": {"tool_calls": call}}) + delta(None, "tool_calls") + DONE)
    with ChatServer(calls) as first, ChatServer(raw_stream(STREAM)) as second:
        client = client_of(api_at(first), api_at(second), cooldown_s=0.0)
        request = {"messages": [{"role": "user", "content": "Why tides?"}]}
        chunks = list(client.relay(request, context=Context.after(60.0)))
        assert "".join(chunk.text for chunk in chunks) == TIDES
        for offered in ({"tools": [{"type": "function"}]}, {"functions": [{"name": "look"}]}):
            chunks = list(client.relay({**request, **offered}, context=Context.after(60.0)))
            assert chunks[0].delta == {"tool_calls": call}


@pytest.mark.parametrize("end", ["RECITATION", "PROHIBITED_CONTENT", "blocklist", "SPII"])
def test_other_names_of_the_content_filter(end: str) -> None:
    with ChatServer(raw_stream(delta("The moon ") + delta(None, end))) as server:
        assert list(events_of(client_of(api_at(server))))[-1] == AnswerEnded("content_filter")


def test_numbers_that_json_does_not_have_are_not_passed_on() -> None:
    usage = b'data:  {"choices": [], "usage": {"a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5}}\n\n'
    with ChatServer(raw_stream(delta(TIDES, "stop") + usage + DONE)) as server:
        request = {"messages": [{"role": "user", "content": "Why tides?"}]}
        chunks = list(client_of(api_at(server)).relay(request, context=Context.after(60.0)))
    assert chunks[-1].usage == {"a": None, "b": None, "c": None, "d": 1.5}
