"""Too many callers at once, against a real gunicorn: each is answered, refused or expired, and none is stuck."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests
from support.chat_server import ChatServer, Exchange, answer, hang_before_headers
from support.checks import check_error, check_wav, connected, wait_for, waiting
from support.running_server import RunningServer, ask, conf_that_admits_all
from support.scraping import scrape
from support.speech import say_wav

CALLERS = 40
DEADLINE_S = 10.0
LATE_S = 10.0  # what a very busy test machine may add to the server's own times


@dataclass
class Outcome:
    """What one caller got, and after how many seconds."""

    response: requests.Response
    took_s: float


def chat_now_and_then(exchange: Exchange) -> None:
    """Answer after a while, but never the question "Hang"."""
    behave = hang_before_headers if exchange.request.question == "Hang" else answer("Good morning.", delay_s=0.3)
    behave(exchange)


def call(url: str, text: str = "Hi") -> Outcome:
    started = time.monotonic()
    response = ask(url, say_wav("hello"), "english", text=text)
    return Outcome(response, time.monotonic() - started)


def hang_up_soon(port: int) -> None:
    """Ask, and hang up after half a second without having read anything."""
    with connected(port):
        time.sleep(0.5)


def check(outcome: Outcome) -> int:
    """Assert that a caller got what it may get, in time, and return the status."""
    response = outcome.response
    match response.status_code:
        case 200:
            check_wav(response.content)
            assert outcome.took_s < DEADLINE_S + LATE_S
        case 503:
            check_error(response, 503, "server_busy")
            assert 1 <= int(response.headers["Retry-After"]) <= 60
        case _:
            check_error(response, 504, "deadline_exceeded")
            assert DEADLINE_S - 0.1 < outcome.took_s < DEADLINE_S + LATE_S
    return response.status_code


def test_forty_callers_at_once(tmp_path: Path) -> None:
    with (
        ChatServer(chat_now_and_then) as chat,
        RunningServer(
            tmp_path,
            gunicorn_conf=conf_that_admits_all(tmp_path),
            max_turns=2,
            max_waiting=6,
            turn_deadline_s=DEADLINE_S,
            chatgpt_apis=[chat.api()],
        ) as server,
        ThreadPoolExecutor(CALLERS + 8) as pool,
    ):
        assert check(call(server.url)) == 200
        calls = [pool.submit(call, server.url, "Hang")]
        wait_for(lambda: any(request.question == "Hang" for request in chat.requests))  # it has one of the two places
        leaving = [pool.submit(hang_up_soon, server.port) for _ in range(4)]
        calls += [pool.submit(call, server.url) for _ in range(CALLERS - len(calls))]
        wait_for(lambda: waiting(server.url) > 0)
        assert requests.get(f"{server.url}/healthz", timeout=LATE_S).status_code == 200  # health answers all the while
        statuses = Counter(check(each.result(DEADLINE_S + 60.0)) for each in calls)
        for each in leaving:
            each.result(10)
        assert statuses[200] >= 2 and statuses[503] >= CALLERS - 20 and statuses[504] >= 1
        assert sum(statuses.values()) == CALLERS
        idle = ("mirrorchat_turns_running", "mirrorchat_turns_left_over", "mirrorchat_queue_depth")
        wait_for(lambda: not any(scrape(server.url)[name] for name in idle))
        seen = scrape(server.url)
        refused = sum(value for name, value in seen.items() if name.startswith("mirrorchat_rejections_total"))
        assert refused >= statuses[503]
        assert check(call(server.url)) == 200  # and afterwards all is as before
