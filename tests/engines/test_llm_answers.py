"""What chat APIs really send: forms, reasoning, errors and silences, through the chat client and a real server."""

import json
import time

import pytest
from support.chat_checks import (  # noqa: F401 (fixtures)
    KEY,
    SOON_S,
    api_at,
    ask,
    client_of,
    events_of,
    no_leaks,
    only_failure,
    plain_environment,
    stream_of,
)
from support.chat_server import (
    DONE,
    STREAM_TYPE,
    Behaviour,
    ChatServer,
    Exchange,
    answer,
    body,
    chunked_stream,
    delta,
    hang,
    in_turn,
    not_streamed,
    raw_stream,
    reasoning,
    trickle_comments,
)

from mirrorchat.concurrency.context import Context
from mirrorchat.engines import AnsweredBy, AnswerEnded, EngineInfo, Thinking
from mirrorchat.errors import ChatFault, ChatInterrupted, NoChatApi
from mirrorchat.settings import ChatApi

TIDES = "The moon pulls."
STREAM = delta("The moon ") + delta("pulls.") + delta(None, "stop") + DONE
WHOLE = json.dumps({"choices": [{"message": {"content": TIDES}, "finish_reason": "stop"}]}).encode()
OLLAMA = b"".join(
    json.dumps({"model": "m", "message": {"role": "assistant", "content": text}, "done": text == ""}).encode() + b"\n"
    for text in ("The moon ", "pulls.", "")
)


def event(**fields: object) -> bytes:
    """Return one event with a choice that has these `fields`, or that is all there is with `choices`."""
    return b"data: " + json.dumps(fields if "choices" in fields else {"choices": [fields]}).encode() + b"\n\n"


def parts(*content: object) -> bytes:
    return event(delta={"content": list(content)})


def headless(data: bytes) -> Behaviour:
    """Answer without a Content-Type."""
    return lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data)


# --- forms


@pytest.mark.parametrize(
    "behaviour",
    [
        *(body(STREAM, kind) for kind in ("text/plain", "application/json", "application/octet-stream", "text/html")),
        *(body(WHOLE, kind) for kind in (STREAM_TYPE, "text/plain", "text/html; charset=utf-8")),
        *(headless(data) for data in (STREAM, WHOLE, OLLAMA)),
        body(json.dumps(json.loads(WHOLE), indent=2).encode(), STREAM_TYPE),
        body(b"\xef\xbb\xbf\r\n \n" + WHOLE),
        body(b"\n\n: hello\n\n" + STREAM, "text/plain"),
        body(b"\xef\xbb\xbf\n\n" + STREAM, "text/plain"),
        body(OLLAMA, "application/x-ndjson"),
        body(STREAM.replace(b"\n\n", b"\n")),
        body(STREAM.replace(b"data: ", b"data:")),
        body(STREAM.replace(b"data: {", b"{")),
        raw_stream(*[STREAM[at : at + 1] for at in range(len(STREAM))], kind="text/plain", pause_s=0.0),
        raw_stream(*[OLLAMA[at : at + 1] for at in range(len(OLLAMA))], kind="text/plain", pause_s=0.0),
    ],
)
def test_the_first_bytes_tell_the_form(behaviour: Behaviour) -> None:
    with ChatServer(behaviour) as server:
        assert ask(client_of(api_at(server))) == TIDES


@pytest.mark.parametrize(
    "events",
    [
        b"data:\n\n" + STREAM,
        b"data: \n\n" + STREAM.replace(DONE, b"data: \n\ndata\n\n" + DONE),
        b'event: ping\ndata: {"type": "ping"}\n\nevent: ping\ndata: now\n\n' + STREAM,
        b'data: {"type": "ping"}\n\n: processing\n\ndata: keep-alive\n\n' + STREAM,
        b'data: {"status": "queued", "message": "You are third."}\n\n' + STREAM,
        STREAM.replace(DONE, b"data: {garbage\n\ndata: [1]\n\n"),
        STREAM.replace(DONE, b'data: {"error": {"message": "too late"}}\n\n' + delta(" Once more.") + DONE),
        delta("The moon ") + event(index=1, delta={"content": "Another."}) + delta("pulls.") + DONE,
        event(delta={"role": "assistant", "content": None}) + event(index=0, finish_reason=None) + STREAM,
        event(message={"content": "The moon "}) + event(message={"content": "pulls."}, finish_reason="stop"),
        event(text="The moon ") + event(text="pulls.", finish_reason="stop"),
        parts({"type": "text", "text": "The moon "}) + parts({"text": "pulls."}, {"type": "image_url"}) + DONE,
        parts({"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]})
        + parts({"type": "text", "text": TIDES}, {"type": "reasoning", "text": "Hm."})
        + DONE,
        event(delta={"content": {"type": "text", "text": TIDES}}) + DONE,
        parts({"type": "text", "text": {"value": TIDES, "annotations": []}}) + DONE,
        event(delta={"content": "<thought>Hm.", "extra_content": {"google": {"thought": True}}})
        + event(delta={"content": f"</thought>{TIDES}"})
        + DONE,
        event(choices=[], error=None) + event(choices=None) + STREAM,
    ],
)
def test_what_is_no_text_is_passed_over(events: bytes) -> None:
    with ChatServer(raw_stream(events)) as server:
        assert ask(client_of(api_at(server))) == TIDES


def test_whatever_follows_a_finish_reason_ends_the_answer_soon() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head()
        exchange.chunk(delta(TIDES, "stop"))
        while True:
            exchange.chunk(b": still here\n\n")
            exchange.wait(0.05)

    with ChatServer(behave) as server:
        assert list(events_of(client_of(api_at(server))))[-1] == AnswerEnded("stop")


# --- who answers, and how the answer ends


def test_events_tell_which_api_answers_and_how_the_answer_ends() -> None:
    with ChatServer(body(b"no", status="500 Bad")) as first, ChatServer(answer("", pieces=["x", "y"])) as second:
        api = api_at(second, model="m2")
        events = list(events_of(client_of(api_at(first), api)))
    assert events == [AnsweredBy(EngineInfo("chat", f"m2@{api.host}", "remote")), "x", "y", AnswerEnded("stop")]


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("eos", "stop"),
        ("COMPLETE", "stop"),
        ("tool_calls", "tool_calls"),
    ],
)
def test_the_reason_for_the_end(sent: str, told: str) -> None:
    with ChatServer(chunked_stream(delta("Tides."), delta(None, sent), DONE)) as server:
        assert list(events_of(client_of(api_at(server))))[-1] == AnswerEnded(told)
    with ChatServer(body(OLLAMA.replace(b'"done": true', b'"done": true, "done_reason": "length"'))) as server:
        assert list(events_of(client_of(api_at(server))))[-1] == AnswerEnded("length")


# --- reasoning


@pytest.mark.parametrize(
    "behaviour",
    [
        answer("<think>Hm. Hm.</think>The moon pulls."),
        answer("", pieces=list("<think>Hm.</think>The moon pulls.")),
        answer("Okay, the user asks about tides.\n</think>\n\nThe moon pulls."),
        answer("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>The moon pulls."),
        answer("The moon pulls.<|im_end|>"),
        chunked_stream(reasoning("Hm."), delta(TIDES, "stop")),
        *(
            chunked_stream(event(delta={name: text}), delta(TIDES, "stop"))
            for name, text in (("reasoning", "Hm."), ("thinking", "Hm."), ("reasoning_details", [{"text": "Hm."}]))
        ),
        chunked_stream(reasoning("Hm."), delta("\n</think>\n\nThe moon pulls.", "stop")),
        not_streamed("<think>Hm.</think>The moon pulls."),
        not_streamed("He asks about tides.</think>The moon pulls."),
        body(OLLAMA.replace(b'"content": "The moon "', b'"content": "The moon ", "thinking": "Hm."')),
    ],
)
@pytest.mark.parametrize("relayed", [False, True], ids=["spoken", "relayed"])
def test_reasoning_is_left_out(behaviour: Behaviour, relayed: bool) -> None:
    with ChatServer(behaviour) as server:
        client = client_of(api_at(server))
        if not relayed:
            assert ask(client) == TIDES
            return
        request = {"messages": [{"role": "user", "content": "Why tides?"}]}
        chunks = list(client.relay(request, context=Context.after(60.0)))
    assert "".join(chunk.text for chunk in chunks).strip() == TIDES
    assert {name for chunk in chunks for name in chunk.delta} == {"content"}
    assert chunks[-1].answered_by == EngineInfo("chat", client.info.model, "remote")


def test_thinking_is_told_at_most_once_a_second_before_the_text() -> None:
    pieces = ["<think>", *["Hm. "] * 30, "</think>", TIDES, "<think>Hm.</think>"]
    with ChatServer(answer("", pieces=pieces, delay_s=0.05)) as server:
        events = list(events_of(client_of(api_at(server))))
    kinds = [type(event) for event in events]
    assert kinds == [Thinking, Thinking, AnsweredBy, str, AnswerEnded]


@pytest.mark.parametrize("text", ["<think>Hm.", "<think>Hm.</think>", "<think>Hm.</think>\n"])
def test_reasoning_without_an_answer_is_a_failure(text: str) -> None:
    with ChatServer(answer(text)) as server, pytest.raises(NoChatApi) as caught:
        ask(client_of(api_at(server)))
    (failure,) = caught.value.failures
    assert (failure.reason, failure.fault) == ("only reasoning, no answer: raise max_tokens", ChatFault.EMPTY)


def test_reasoning_alone_is_no_beginning_of_an_answer() -> None:
    with ChatServer(chunked_stream(reasoning("Hm."), whole=False)) as first, ChatServer(answer(TIDES)) as second:
        assert ask(client_of(api_at(first), api_at(second))) == TIDES


def test_an_api_that_omits_the_opening_tag_is_asked_once_more_and_remembered() -> None:
    with ChatServer(answer("He asks about tides. </think>The moon pulls.")) as server:
        client = client_of(api_at(server))
        with pytest.raises(ChatInterrupted) as caught:
            ask(client)
        assert caught.value.failures == ()  # so that a turn nobody has heard anything of asks it again
        assert [ask(client), ask(client)] == [TIDES, TIDES]
    with ChatServer(answer("He asks about tides. </think>The moon pulls.")) as server:
        assert ask(client_of(api_at(server, model="deepseek-r1:7b"))) == TIDES


# --- errors within an answer


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"error": {"message": "The model is overloaded.", "type": "x"}}, "The model is overloaded."),
        ({"error": "The model is overloaded."}, "The model is overloaded."),
        ({"error": {"code": 1301}}, "code 1301"),
        ({"error": True, "message": "Bad token"}, "Bad token"),
        ({"error": 1, "code": 1301}, "code 1301"),
        ({"code": 401, "msg": "令牌已过期"}, "令牌已过期"),
        ({"code": "InvalidApiKey", "message": "No such key."}, "No such key."),
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"message": "Unknown model", "status": 404}, "Unknown model"),
        ({"success": False, "message": "No credit"}, "No credit"),
        ({"object": "error", "message": "Too long", "code": 40303}, "Too long"),
        ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}, "choices": None}, "login fail"),
        ({"error_code": 17, "error_msg": "Daily limit"}, "Daily limit"),
        ({"errors": [{"message": "No route"}]}, "No route"),
        ({"Response": {"Error": {"Code": "AuthFailure", "Message": "Bad signature"}}}, "Bad signature"),
        ({"errno": 6, "errmsg": "No permission"}, "No permission"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, "Busy"),
    ],
)
def test_an_error_with_status_200_is_told(error: dict[str, object], message: str) -> None:
    data = json.dumps(error).encode()
    with ChatServer(body(data)) as server:
        assert only_failure(client_of(api_at(server))) == f"an error instead of an answer: {message}"
        server.behaviour = raw_stream(b"data: " + data + b"\n\n")
        assert only_failure(client_of(api_at(server))) == f"an error in the stream: {message}"


def test_the_last_status_is_told_if_no_answer_follows() -> None:
    with ChatServer(raw_stream(b'data: {"message": "No route matched."}\n\n')) as server:
        assert only_failure(client_of(api_at(server))) == "the stream broke off: No route matched."


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (f"The key {KEY} is wrong.", "The key *** is wrong."),
        ("The key sk-proj-Ab12****wxyz is wrong.", "The key *** is wrong."),
        ("Ask https://api.example/v1?key=Zx81&b=2 later.", "Ask https://api.example/v1?***&*** later."),
        ("Authorization: Bearer abc123def456", "Authorization: ***"),
        ("Cannot answer 天空是什么颜色？ here.", "Cannot answer *** here."),
        ("Two\r\nlines\x1b[31m", "Two lines [31m"),
        ("x" * 10 + " y" * 500, "x" * 10 + " y" * 93 + " ..."),
        ("The model accounts/a/models/llama-v3p1-405b-instruct does not exist.",) * 2,
    ],
)
def test_messages_hold_no_key_and_fit_on_a_line(message: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    data = json.dumps({"error": {"message": message}}).encode()
    for status_line in ("200 OK", "400 Bad Request"):
        with ChatServer(body(data, status=status_line)) as server:
            assert only_failure(client_of(api_at(server))).endswith(f": {told}")
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "messages", [[{"role": "user", "content": [{"type": "text", "text": "my secret word"}, 7]}], 7, [7], "my", None]
)
def test_the_words_of_any_request_are_masked(messages: object) -> None:
    with ChatServer(body(b'{"error": "Not about my secret word!"}')) as server, pytest.raises(NoChatApi) as caught:
        list(client_of(api_at(server)).relay({"messages": messages}, context=Context.after(60.0)))
    hidden = isinstance(messages, list) and isinstance(messages[0], dict)
    assert caught.value.failures[0].reason.endswith("Not about ***!" if hidden else "Not about my secret word!")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (body(b"model not found", "text/plain", "404 Not Found"), "HTTP 404: model not found"),
        (body(b"<html>nginx</html>", "text/html", "502 Bad Gateway"), "HTTP 502"),
        (body(b'{"error": {"message": ', status="500 Bad"), "HTTP 500"),
        (body(b'[{"error": {"message": "Bad key"}}]', status="400 Bad"), "HTTP 400: Bad key"),
        (body(b'{"detail": "No"}', status="403 No"), "HTTP 403: No"),
        (body(b"", status="503 No"), "HTTP 503"),
    ],
)
def test_the_body_of_a_refusal_is_told(behaviour: Behaviour, reason: str) -> None:
    with ChatServer(behaviour) as server:
        assert only_failure(client_of(api_at(server))) == reason


def test_the_body_of_a_refusal_that_never_ends_is_not_waited_for() -> None:
    def endless(exchange: Exchange) -> None:
        exchange.head("500 Bad")
        while True:
            exchange.chunk(b"<p>" * 1000)

    def silent(exchange: Exchange) -> None:
        exchange.head("500 Bad")
        hang(exchange)

    for behaviour in (endless, silent):
        with ChatServer(behaviour) as server:
            started = time.monotonic()
            assert only_failure(client_of(api_at(server))) == "HTTP 500"
            assert time.monotonic() - started < 8.0  # 1 s on an idle machine


# --- silences


def silent_then(seconds: float, *, where: str) -> Behaviour:
    """Be silent before the headers, before the first event, or after the role; then answer."""

    def behave(exchange: Exchange) -> None:
        if where == "headers":
            exchange.wait(seconds)
        exchange.head()
        if where == "role":
            exchange.chunk(delta(""))
        if where != "headers":
            exchange.wait(seconds)
        exchange.chunk(delta(TIDES, "stop") + DONE)
        exchange.end()

    return behave


@pytest.mark.parametrize("where", ["headers", "events", "role"])
def test_the_first_token_has_a_limit_of_its_own(where: str) -> None:
    with ChatServer(silent_then(1.5, where=where)) as server:
        assert ask(client_of(api_at(server, timeout_s=1.0))) == TIDES
        assert only_failure(client_of(api_at(server, first_token_timeout_s=SOON_S))) == "no answer within 0.3 s"


def test_forty_seconds_of_silence_or_reasoning_fit_into_the_defaults() -> None:
    """Everything a fortieth as long."""
    default = ChatApi(url="http://chat.example/v1")
    names = ("timeout_s", "first_token_timeout_s", "total_timeout_s")
    limits = {name: getattr(default, name) / 40 + (0.3 if name == "timeout_s" else 0.0) for name in names}
    thoughts = answer("", pieces=["<think>", *["Hm. "] * 10, "</think>", TIDES], delay_s=1.0 / 13)
    with ChatServer(in_turn(silent_then(1.0, where="headers"), thoughts)) as server:
        client = client_of(api_at(server, **limits))
        assert [ask(client), ask(client)] == [TIDES, TIDES]


@pytest.mark.parametrize("first", [delta("The moon"), reasoning("Hm."), delta("<think>"), delta("<think>Hm.")])
def test_a_silence_after_the_first_token_is_limited(first: bytes) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head()
        exchange.chunk(first)
        hang(exchange)

    with ChatServer(behave) as server, pytest.raises((NoChatApi, ChatInterrupted)) as caught:
        ask(client_of(api_at(server, timeout_s=1.0)))
    assert caught.value.failures[0].reason == "silent for 1 s"


def test_reasoning_without_end_is_limited() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head()
        while True:
            exchange.chunk(reasoning("Hm."))
            exchange.wait(0.05)

    with ChatServer(behave) as server:
        assert only_failure(client_of(api_at(server, total_timeout_s=2.0))) == "no whole answer within 2 s"


def test_comments_are_no_token() -> None:
    with ChatServer(trickle_comments("")) as server:
        assert only_failure(client_of(api_at(server, first_token_timeout_s=1.0))) == "no answer within 1 s"


def test_text_is_passed_on_at_once_after_reasoning() -> None:
    with ChatServer(raw_stream(reasoning("Hm."), delta("The moon "), pause_s=3.0)) as server:
        stream = stream_of(client_of(api_at(server)))
        started = time.monotonic()
        assert next(stream) == "The moon "
        assert time.monotonic() - started < 5.5  # the text comes after 3 s, and the next event after 6 s
        stream.close()


# --- further fields of the request


def test_extra_body_is_sent_and_never_replaces_what_the_server_needs() -> None:
    extra = {
        "chat_template_kwargs": {"enable_thinking": False},
        "max_tokens": 7,
        "model": "other",
        "messages": [],
        "stream": False,
    }
    with ChatServer() as server:
        client = client_of(api_at(server, model="m1", max_tokens=90, temperature=0.5, extra_body=extra))
        ask(client)
        request = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 3, "top_p": 0.5}
        list(client.relay(request, context=Context.after(60.0)))
    spoken, relayed = (request.body for request in server.requests)
    assert spoken.pop("messages")[-1]["role"] == "user"
    assert spoken == {
        "model": "m1",
        "stream": True,
        "temperature": 0.5,
        "max_tokens": 7,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert relayed["max_completion_tokens"] == 3
    assert "max_tokens" not in relayed
    assert relayed["top_p"] == 0.5
