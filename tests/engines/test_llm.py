"""The chat client against real servers on loopback that answer, refuse, hang, trickle and break in every way."""

import gzip
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from support.chat_checks import (  # noqa: F401 (fixtures)
    KEY,
    LATE_S,
    SOON_S,
    api_at,
    ask,
    check_cancel,
    client_of,
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
    RefusingPort,
    SilentPort,
    answer,
    body,
    chunked_stream,
    delta,
    hang,
    hang_after,
    hang_after_headers,
    hang_before_headers,
    html,
    huge_line,
    in_turn,
    not_streamed,
    raw_stream,
    status,
    trickle_comments,
    trickle_headers,
    truncated,
)

from mirrorchat.chat.chunks import MAX_ANSWER_CHARS
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Message
from mirrorchat.errors import ChatFailure, ChatInterrupted, ChatRateLimited, ClientGone, DeadlineExceeded, NoChatApi
from mirrorchat.llm import build_messages
from mirrorchat.settings import SYSTEM_PROMPT


def _failure(behaviour: Behaviour, **settings: object) -> str:
    """Return why an API that behaves so gave no answer, after seeing that the next one in the list did."""
    with ChatServer(behaviour) as bad, ChatServer(answer("Blue.")) as good:
        assert ask(client_of(api_at(bad, **settings), api_at(good))) == "Blue."
        assert len(bad.requests) == len(good.requests) == 1
        return only_failure(client_of(api_at(bad, **settings)))


# --- answers


def test_the_question_reaches_the_api_and_the_answer_comes_in_pieces() -> None:
    with ChatServer(answer("", pieces=["Blue", ", ", "蓝色", "."])) as server:
        client = client_of(api_at(server, model="m1", temperature=0.5, max_tokens=90, headers={"X-Team": "red"}))
        assert list(stream_of(client)) == ["Blue", ", ", "蓝色", "."]
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "m1",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "天空是什么颜色？"}],
        "stream": True,
        "temperature": 0.5,
        "max_tokens": 90,
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-team"] == "red"
    assert not request.closed_early.is_set()


def test_optional_fields_and_an_empty_key_are_not_sent() -> None:
    with ChatServer() as server:
        assert ask(client_of(api_at(server, key="", url=server.base_url))) == "All is well."
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert set(request.body) == {"model", "messages", "stream"}
    assert "authorization" not in request.headers


def test_headers_of_the_settings_win() -> None:
    with ChatServer() as server:
        ask(client_of(api_at(server, headers={"authorization": "Token abc", "api-key": "def"})))
    assert server.requests[0].headers["authorization"] == "Token abc"
    assert server.requests[0].headers["api-key"] == "def"


def test_pieces_come_while_the_server_still_writes() -> None:
    with ChatServer(hang_after("Blue,")) as server:
        stream = stream_of(client_of(api_at(server)))
        assert next(stream) == "Blue,"
        stream.close()
        assert server.requests[0].closed_early.wait(10.0)


def test_leading_whitespace_is_held_back_until_text_comes() -> None:
    with ChatServer(answer("", pieces=["\n", " ", " \nBlue", " sky "])) as server:
        assert list(stream_of(client_of(api_at(server)))) == ["Blue", " sky "]


def test_an_api_that_ignores_stream_is_an_answer_too() -> None:
    with ChatServer(not_streamed("\nBlue, 蓝色.")) as server:
        assert list(stream_of(client_of(api_at(server)))) == ["Blue, 蓝色."]


def test_a_compressed_answer_is_read_although_none_was_asked_for() -> None:
    packed = gzip.compress(delta("Blue.") + DONE)
    with ChatServer(body(packed, STREAM_TYPE, headers=["Content-Encoding: gzip"])) as server:
        assert ask(client_of(api_at(server))) == "Blue."
        assert server.requests[0].headers["accept-encoding"] == "identity"


def test_an_answer_without_end_is_cut() -> None:
    with ChatServer(chunked_stream(*[delta("x" * 999)] * 30)) as server:
        assert ask(client_of(api_at(server))) == "x" * MAX_ANSWER_CHARS


# --- the form of the stream


@pytest.mark.parametrize(
    "packets",
    [
        [delta("Blue, "), delta("蓝色"), DONE],
        [b"\xef\xbb\xbf" + delta("Blue, "), delta("蓝色"), DONE],
        [b": hello\n\n", delta("Blue, "), b":\n\n", delta("蓝色"), DONE],
        [(delta("Blue, ") + delta("蓝色") + DONE).replace(b"\n", b"\r\n")],
        [(delta("Blue, ") + delta("蓝色") + DONE).replace(b"\n", b"\r")],
        [b'data:{"choices":\ndata: [{"delta":\ndata: {"content": "Blue, "}}]}\n\n', delta("蓝色"), DONE],
        [b"event: message\nid: 7\nretry: 10\n" + delta("Blue, "), delta("蓝色"), DONE],
        [delta("Blue, "), delta("蓝色") + b"data: [DONE]"],
        [delta("Blue, "), delta("蓝色", "stop")],
        [delta("Blue, "), delta("蓝色"), b'data: {"choices": [], "usage": {"total_tokens": 9}}\n\n', DONE],
        [delta("Blue, "), b'data: {"choices": [{"delta": {"role": "assistant", "content": null}}]}\n\n',
         delta("蓝色"), DONE],
    ],
    ids=["plain", "BOM", "comments", "CRLF", "CR", "several data lines", "other fields", "no blank line at the end",
         "no DONE", "usage", "null content"],
)  # fmt: skip
@pytest.mark.parametrize("step", [0, 1, 3], ids=["in packets", "by one byte", "by three bytes"])
def test_forms_of_the_stream(packets: list[bytes], step: int) -> None:
    whole = b"".join(packets)
    cut = [whole[at : at + step] for at in range(0, len(whole), step)] if step else packets
    with ChatServer(raw_stream(*cut, pause_s=0.0)) as server:
        assert ask(client_of(api_at(server))) == "Blue, 蓝色"


def test_surrogates_split_over_two_events_are_one_character() -> None:
    halves = (b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % half for half in (b"a\\ud83d", b"\\ude00b"))
    with ChatServer(chunked_stream(*halves, DONE)) as server:
        assert ask(client_of(api_at(server))) == "a😀b"


def test_a_lone_surrogate_and_invalid_utf8_become_replacement_characters() -> None:
    lone = b'data: {"choices": [{"delta": {"content": "a\\ud83db"}}]}\n\n'
    with ChatServer(chunked_stream(lone, delta("c").replace(b"c", b"c\xff", 1), delta("d"), DONE)) as server:
        reply = ask(client_of(api_at(server)))
    assert reply.encode() and reply.startswith("a\ufffdb") and reply.endswith("d")


def test_a_finished_answer_does_not_wait_for_a_server_that_stays() -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head()
        exchange.chunk(delta("Blue.", "stop"))
        hang(exchange)

    with ChatServer(behave) as server:
        started = time.monotonic()
        assert ask(client_of(api_at(server))) == "Blue."
        assert time.monotonic() - started < LATE_S - 5
        assert server.requests[0].closed_early.wait(10.0)


# --- falling to the next API


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (status(401), "HTTP 401: cannot use Bearer ***"),
        (status(429), "HTTP 429: cannot use Bearer ***"),
        (status(500), "HTTP 500: cannot use Bearer ***"),
        (status(204), "an empty stream"),
        (html, "a web page instead of an answer: it may be the sign-in page of a proxy"),
        (body(b"hello", f"text/{KEY}"), "neither an event stream nor JSON: hello"),
        (chunked_stream(), "an empty stream"),
        (chunked_stream(DONE), "an empty answer"),
        (chunked_stream(delta(" \n"), delta(None, "stop"), DONE), "an empty answer"),
        (not_streamed("  "), "an empty answer"),
        (body(b'{"choices": []}'), "an empty answer"),
        (truncated(), "the connection broke off"),
        (truncated(" "), "the connection broke off"),
        (raw_stream(delta(" ")), "the stream broke off"),
        (raw_stream(delta("Blue")[:-9]), "not valid JSON"),
        (chunked_stream(b'data: {"error": {"message": "overloaded"}}\n\n', DONE), "an error in the stream: overloaded"),
        (
            chunked_stream(b'event: error\ndata: {"message": "overloaded"}\n\n', DONE),
            "an error in the stream: overloaded",
        ),
        (body(b'{"error": {"message": "overloaded"}}'), "an error instead of an answer: overloaded"),
        (body(b'{"choices": [{"mess'), "not valid JSON"),
        (body(b"[" * 100_000), "not valid JSON"),
        (body(b"[]"), "not a chat completion"),
        (body(b"{}", headers=["Content-Encoding: gzip"]), "a body that cannot be decoded"),
        (body(b"{\n" + b" \n" * 600_000), "the JSON body is too long"),
        (chunked_stream(b"data: {nonsense}\n\n", DONE), "not valid JSON"),
        (huge_line, "a line is too long for an event stream"),
        (chunked_stream(*[b"data: " + b"x" * 60_000 + b"\n"] * 20), "an event is too long for an event stream"),
        (lambda exchange: None, "the connection broke off"),
        (lambda exchange: exchange.send(b"what is this?\r\n\r\n"), "the connection broke off"),
        (lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le"), "an empty stream"),
    ],
)
def test_the_next_api_answers(behaviour: Behaviour, reason: str) -> None:
    assert _failure(behaviour) == reason


@pytest.mark.parametrize(
    ("behaviour", "limit", "reason"),
    [
        (hang_after(" "), "total_timeout_s", "no whole answer within 0.3 s"),
        (hang_before_headers, "first_token_timeout_s", "no answer within 0.3 s"),
        (hang_after_headers, "first_token_timeout_s", "no answer within 0.3 s"),
        (hang_after(" "), "first_token_timeout_s", "no answer within 0.3 s"),
        (trickle_headers, "first_token_timeout_s", "no answer within 0.3 s"),
        (trickle_comments(), "first_token_timeout_s", "no answer within 0.3 s"),
        (trickle_headers, "total_timeout_s", "no whole answer within 0.3 s"),
        (trickle_comments(), "total_timeout_s", "no whole answer within 0.3 s"),
    ],
)
def test_the_next_api_answers_when_time_is_up(behaviour: Behaviour, limit: str, reason: str) -> None:
    assert _failure(behaviour, **{limit: SOON_S}) == reason


def test_refused_unresolved_and_silent_ports() -> None:
    with RefusingPort() as refusing, SilentPort() as silent, ChatServer() as good:
        apis = [
            api_at(refusing),
            api_at(refusing, url="http://nobody.invalid/v1", timeout_s=5.0),
            api_at(silent, timeout_s=SOON_S),
        ]
        assert ask(client_of(*apis, api_at(good))) == "All is well."
        with pytest.raises(NoChatApi) as caught:
            ask(client_of(*apis))
    refused, unresolved, unconnected = caught.value.failures
    assert refused == ChatFailure(0, f"API 1 ({apis[0].host})", "refused the connection")
    assert unresolved.reason in ("its name cannot be resolved", "no connection within 5 s")  # a resolver may hang
    assert unconnected.reason == "no connection within 0.3 s"


def test_a_redirect_is_not_followed_and_says_why() -> None:
    with ChatServer() as elsewhere:
        reason = _failure(status(301, f"Location: {elsewhere.url}?{KEY}"))
        assert reason == "HTTP 301, a redirect, which is not followed: a key goes to no other host"
        assert elsewhere.requests == []


def test_no_api_at_all() -> None:
    with pytest.raises(NoChatApi, match="none is set"):
        ask(client_of())


def test_a_request_that_cannot_be_sent() -> None:
    with ChatServer() as server:
        client = client_of(
            api_at(server, headers={"X-Name": "a\nb"}), api_at(server, headers={"X-Name": "天"}), api_at(server)
        )
        assert ask(client) == "All is well."
        assert only_failure(client_of(api_at(server, headers={"X-Name": f"{KEY}\n"}))).startswith(
            "the request cannot be"
        )


# --- breaking after some of it was passed on


@pytest.mark.parametrize(
    ("behaviour", "settings", "reason"),
    [
        (truncated("Blue", ", "), {}, "the connection broke off"),
        (raw_stream(delta("Blue"), delta(", ")), {}, "the stream broke off"),
        (hang_after("Blue", ", "), {"timeout_s": 2.0}, "silent for 2 s"),
        (trickle_comments("Blue", ", "), {"total_timeout_s": 2.0}, "no whole answer within 2 s"),
        (chunked_stream(delta("Blue"), delta(", "), b'data: {"error": 1}\n\n'), {}, "an error in the stream"),
    ],
)
def test_a_stream_that_breaks_after_a_piece(behaviour: Behaviour, settings: dict[str, float], reason: str) -> None:
    with RefusingPort() as refusing, ChatServer(behaviour) as broken, ChatServer(answer("Red.")) as good:
        client = client_of(api_at(refusing), api_at(broken, **settings), api_at(good))
        stream = stream_of(client)
        assert [next(stream), next(stream)] == ["Blue", ", "]
        with pytest.raises(ChatInterrupted) as caught:
            next(stream)
        failed = caught.value.failures
        assert [(failure.index, failure.reason) for failure in failed] == [(0, "refused the connection"), (1, reason)]
        assert good.requests == []
        assert "".join(stream_of(client, failed)) == "Red."
        assert len(broken.requests) == 1


def test_failed_apis_are_not_tried_again_and_none_is_left() -> None:
    with ChatServer(truncated("Blue")) as server:
        client = client_of(api_at(server))
        with pytest.raises(ChatInterrupted) as caught:
            ask(client)
        with pytest.raises(NoChatApi) as none_left:
            list(stream_of(client, caught.value.failures))
        assert none_left.value.failures == caught.value.failures
        assert len(server.requests) == 1


# --- the cool-down


def test_an_api_that_failed_is_tried_last_until_its_cooldown_ends() -> None:
    with ChatServer(in_turn(status(500), answer("A"))) as first, ChatServer(answer("B")) as second:
        client = client_of(api_at(first), api_at(second), cooldown_s=1.0)
        assert [ask(client), ask(client)] == ["B", "B"]
        assert len(first.requests) == 1
        time.sleep(1.1)
        assert ask(client) == "A"


@pytest.mark.parametrize(("code", "next_answer"), [(400, "A"), (413, "A"), (422, "A"), (401, "B"), (500, "B")])
def test_a_request_of_a_callers_own_that_is_refused_cools_no_api(code: int, next_answer: str) -> None:
    """Else whoever sends nonsense would decide which API answers others."""
    with ChatServer(in_turn(status(code), answer("A"))) as first, ChatServer(answer("B")) as second:
        client = client_of(api_at(first), api_at(second))
        nonsense = {"messages": [{"role": "user", "content": "Hi"}], "tools": "none"}
        assert list(client.relay(nonsense, context=Context.after(30.0)))
        assert client.failures() == ((0, 0) if next_answer == "A" else (1, 0))
        assert ask(client) == next_answer


def test_cooling_apis_are_tried_in_the_order_in_which_their_cooldowns_end() -> None:
    with ChatServer(status(500)) as first, ChatServer(status(500)) as second, ChatServer(answer("C")) as third:
        client = client_of(api_at(first), api_at(second), api_at(third))
        assert ask(client) == "C"
        third.behaviour = status(500)
        with pytest.raises(NoChatApi) as caught:  # the healthy one first, then the two that cool
            ask(client)
        assert [failure.index for failure in caught.value.failures] == [2, 0, 1]
        third.behaviour = answer("C")
        assert ask(client) == "C"  # it failed first, so it is ready soonest
        assert [len(server.requests) for server in (first, second, third)] == [2, 2, 3]


def test_a_success_ends_the_cooldown() -> None:
    later = in_turn(status(429, "Retry-After: 100"), answer("B"))
    with ChatServer(status(500)) as first, ChatServer(later) as second:
        client = client_of(api_at(first), api_at(second))
        with pytest.raises(NoChatApi):
            ask(client)
        assert [ask(client), ask(client)] == ["B", "B"]  # were it cooling still, first would be ready sooner
        assert len(first.requests) == 2


def test_retry_after_lengthens_the_cooldown() -> None:
    with ChatServer(in_turn(status(429, "Retry-After: 100"), answer("A"))) as first, ChatServer(answer("B")) as second:
        client = client_of(api_at(first), api_at(second), cooldown_s=0.0)
        assert [ask(client), ask(client)] == ["B", "B"]
        assert len(first.requests) == 1


def test_a_retry_after_that_is_no_number_of_seconds_is_ignored() -> None:
    behaviour = in_turn(status(429, "Retry-After: soon"), status(429, "Retry-After: ²"), answer("A"))
    with ChatServer(behaviour) as first, ChatServer(answer("B")) as second:
        client = client_of(api_at(first), api_at(second), cooldown_s=0.0)
        assert [ask(client), ask(client), ask(client)] == ["B", "B", "A"]


@pytest.mark.parametrize(
    ("header", "least_s", "most_s"),
    [
        ("20", 20, 20),
        ("1.5", 2, 2),
        ("0", 1, 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1, 1),
        ("100000", 300, 300),
        ("in 200 s", 100, 200),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 300, 300),
    ],
)
def test_a_rate_limit_of_the_last_api_says_when_to_ask_again(header: str, least_s: int, most_s: int) -> None:
    if header == "in 200 s":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
    with ChatServer(status(500)) as first, ChatServer(status(429, f"Retry-After: {header}")) as second:
        with pytest.raises(ChatRateLimited) as caught:
            ask(client_of(api_at(first), api_at(second)))
        assert caught.value.status == 503
        assert least_s <= (caught.value.retry_after_s or 0) <= most_s
        with pytest.raises(NoChatApi) as other:  # the last one fails for another reason
            ask(client_of(api_at(second), api_at(first)))
        assert (other.value.status, other.value.retry_after_s) == (502, None)


@pytest.mark.parametrize("header", ["Retry-After: ²", "Retry-After: -1", "Retry-After: Wed, 99 Oct", "X-Other: 1"])
def test_a_rate_limit_that_does_not_say_when_is_a_failure_like_others(header: str) -> None:
    with ChatServer(status(429, header)) as server, pytest.raises(NoChatApi) as caught:
        ask(client_of(api_at(server)))
    assert (caught.value.status, caught.value.retry_after_s) == (502, None)


# --- the turn's deadline and cancel


@pytest.mark.parametrize("behaviour", [hang_before_headers, trickle_headers, trickle_comments(), hang_after("Blue")])
def test_the_deadline_ends_the_turn_and_blames_no_api(behaviour: Behaviour) -> None:
    with ChatServer(in_turn(behaviour, answer("A"))) as first, ChatServer(answer("B")) as second:
        client = client_of(api_at(first), api_at(second))
        with pytest.raises(DeadlineExceeded):
            list(stream_of(client, context=Context.after(0.7)))
        assert first.requests[0].closed_early.wait(10.0)
        assert ask(client) == "A"


def test_the_deadline_holds_while_connecting_and_blames_no_api(caplog: pytest.LogCaptureFixture) -> None:
    with SilentPort() as silent:
        client = client_of(api_at(silent, timeout_s=60.0))
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            list(stream_of(client, context=Context.after(SOON_S)))
        assert time.monotonic() - started < 30.0
    assert "API 1" not in caplog.text


def test_an_api_that_used_up_its_own_time_is_blamed_although_the_deadline_passed_too() -> None:
    with ChatServer(hang_before_headers) as first, ChatServer(answer("B")) as second:
        client = client_of(api_at(first, first_token_timeout_s=SOON_S), api_at(second))
        with pytest.raises(DeadlineExceeded):
            list(stream_of(client, context=Context.after(SOON_S)))
        assert ask(client) == "B"
        assert len(first.requests) == 1


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    with ChatServer() as server:
        with pytest.raises(DeadlineExceeded):
            list(stream_of(client_of(api_at(server)), context=Context.after(0.0)))
        assert server.requests == []


@pytest.mark.parametrize("behaviour", [hang_before_headers, hang_after_headers, trickle_headers, trickle_comments()])
def test_cancel_ends_a_read_that_blocks(behaviour: Behaviour) -> None:
    check_cancel(ChatServer(in_turn(behaviour, answer("A"))))


def test_cancel_is_noticed_while_connecting() -> None:
    with SilentPort() as silent, ThreadPoolExecutor(1) as pool:
        context = Context.after(60.0)
        turn = pool.submit(lambda: list(stream_of(client_of(api_at(silent, timeout_s=60.0)), context=context)))
        time.sleep(0.2)
        started = time.monotonic()
        context.cancel(ClientGone("the caller hung up"))
        with pytest.raises(ClientGone):
            turn.result(LATE_S)
        assert time.monotonic() - started < 30.0


def test_cancel_is_noticed_between_pieces() -> None:
    with ChatServer(answer("", pieces=["x", "y", "z"])) as server:
        context = Context.after(60.0)
        stream = stream_of(client_of(api_at(server)), context=context)
        assert next(stream) == "x"
        context.cancel(ClientGone("the caller hung up"))
        with pytest.raises(ClientGone):
            next(stream)


def test_a_slow_reader_makes_no_api_look_slow() -> None:
    with ChatServer(answer("", pieces=["x", "y", "z"])) as server:
        stream = stream_of(client_of(api_at(server, first_token_timeout_s=3.0, total_timeout_s=3.0)))
        assert next(stream) == "x"
        time.sleep(3.5)
        assert list(stream) == ["y", "z"]


def test_a_stream_that_is_never_begun_sends_nothing() -> None:
    with ChatServer() as server:
        stream_of(client_of(api_at(server))).close()
        assert server.requests == []


# --- several callers


def test_two_callers_at_once_get_their_own_answers() -> None:
    def echo(messages: list[dict[str, str]]) -> str:
        return f"You said {messages[-1]['content']}."

    with ChatServer(answer(echo, delay_s=0.02)) as server, ThreadPoolExecutor(2) as pool:
        client = client_of(api_at(server))

        def ask(text: str) -> str:
            asked = [Message("user", text)]
            events = client.stream(asked, context=Context.after(60.0))
            return "".join(event for event in events if isinstance(event, str))

        texts = [f"number {index}" for index in range(8)]
        assert list(pool.map(ask, texts)) == [f"You said {text}." for text in texts]


# --- the messages


def test_build_messages() -> None:
    system, user = build_messages(SYSTEM_PROMPT, Language.CHINESE, "为什么 {language}？")
    assert (system.role, user.role) == ("system", "user")
    assert "Answer in Chinese" in system.content
    assert user.content == "为什么 {language}？"
    assert build_messages("Speak {language}.", Language.ENGLISH, "?")[0].content == "Speak English."
