"""Tries each chat API with a request for one token, all in parallel, for `mirrorchat doctor`."""

import os
import re
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from mirrorchat.chat.ollama import ollama_advice
from mirrorchat.cli.doctor.findings import Finding, Value, ok, problem, warning
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import ChatEvent, Language
from mirrorchat.errors import ChatFailure, ChatFault, DeadlineExceeded, NoChatApi
from mirrorchat.llm import ChatClient, build_messages
from mirrorchat.settings import SYSTEM_PROMPT, ChatApi, Settings

_QUESTION = "Say yes."
_SOURCE = "source"
_HOW_TO_SET = "set OPENAI_API_KEY or MIRRORCHAT_CHAT_URL, or chatgpt_apis in config.py; config.example.py has examples"

_STATUS_REMEDIES = {
    400: "check the model's name, temperature, headers and extra_body: the API rejects the request",
    401: "set this API's key where the list comes from: it is missing, wrong or has expired",
    402: "the account has no credit left: pay, or take another API",
    403: "the key does not allow this model or this place: check the account, or take another key",
    404: "check the model's name, and the url: a base URL as the provider prints it (many end in /v1), or the full"
    " endpoint",
    405: "check the url: it is not an endpoint of chat completions",
    429: "the rate limit is exceeded or the credit is used up: wait, or check the account",
}
_REMEDIES = {
    ChatFault.NAME: "check the host in the url, and the DNS of this computer: `getent hosts {host}`",
    ChatFault.REFUSED: "start the API's server (`ollama serve`, ...), or check host and port in the url",
    ChatFault.TIMEOUT: "check the network to {host}; if it loads its model first, or reasons in silence, raise"
    " first_token_timeout_s",
    ChatFault.TLS: "check https in the url, the clock of this computer, and REQUESTS_CA_BUNDLE for own certificates",
    ChatFault.PROXY: "check http_proxy, https_proxy and no_proxy: the proxy cannot be used (SOCKS is not supported)",
    ChatFault.CONNECTION: "check the network to {host}: connections fail or break",
    ChatFault.REQUEST: "check url, headers and proxy: the request cannot be sent",
    ChatFault.ANSWER: "check the url: the answer is not that of a chat API; it may be a sign-in page",
    ChatFault.EMPTY: "check the model's name",
    ChatFault.ERROR: "do what the API's message says: check the key, the model's name and the account",
}


@dataclass(frozen=True)
class Tried:
    """The result of a trial. `failure` is None for an answer; `limited` tells whether the API accepts `max_tokens`."""

    api: ChatApi
    failure: ChatFailure | None
    spent_s: float
    limited: bool = True


def chat_findings(apis: Sequence[ChatApi], *, limit_s: float, at_once: int) -> list[Finding]:
    """Return a finding for each API. A failure is a warning if another API answers, otherwise a problem.

    Each API has `limit_s` seconds to answer; `at_once` APIs are tried in parallel.
    """
    with ThreadPoolExecutor(min(at_once, len(apis)), thread_name_prefix="try-chat") as pool:
        results = list(pool.map(partial(_try, limit_s=limit_s), apis))
    works = any(result.failure is None for result in results)
    return [_finding(f"API {index}", result, works) for index, result in enumerate(results, 1)]


def source_finding(settings: Settings, *, network: bool) -> Finding:
    """Return what sets the list, and the hosts that words are sent to. If no API is set, look for an Ollama."""
    source, apis = settings.chat_source, settings.chatgpt_apis
    if apis:
        hosts = ", ".join(dict.fromkeys(api.host for api in apis))
        return ok(_SOURCE, f"{source} is set; words are sent to {hosts}", source=source, hosts=hosts)
    if source:
        return ok(_SOURCE, f"{source} is empty: the server repeats the question (parrot)", source=source, hosts="")
    advice = ollama_advice(settings, os.environ) if network else ""
    found = "no chat API is set: the server repeats the question (parrot)"
    return warning(_SOURCE, found, advice or _HOW_TO_SET, source=None, hosts="")


def _try(api: ChatApi, limit_s: float) -> Tried:
    first = _ask(replace(api, max_tokens=1), limit_s)
    if first.failure and first.failure.status in (400, 422):  # some models reject max_tokens: try the server's request
        return replace(_ask(api, limit_s), limited=False)
    return first


def _ask(api: ChatApi, limit_s: float) -> Tried:
    """Send a question, and hang up when the model writes. An empty answer counts: it may be one token."""
    messages = build_messages(SYSTEM_PROMPT, Language.ENGLISH, _QUESTION)
    started = time.monotonic()
    failure = None
    try:
        client = ChatClient([api], cooldown_s=0.0)
        pieces = client.stream(messages, context=Context.after(limit_s))
        with closing(cast(Generator[ChatEvent], pieces)):
            next(pieces)
    except NoChatApi as error:
        failure = error.failures[0] if error.failures[0].fault is not ChatFault.EMPTY else None
    except DeadlineExceeded:
        failure = ChatFailure(0, "", f"no answer within {limit_s:g} s", ChatFault.TIMEOUT)
    return Tried(api, failure, time.monotonic() - started)


def _finding(subject: str, tried: Tried, another_works: bool) -> Finding:
    api, failure = tried.api, tried.failure
    milliseconds = round(1000 * tried.spent_s)
    name = f"{api.model}@{api.host}"
    values: dict[str, Value] = {"host": api.host, "model": api.model, "ms": milliseconds}
    if failure is None:
        note = "" if tried.limited else " (not to a request with max_tokens)"
        return ok(subject, f"{name} answers{note}, {milliseconds} ms", **values, status=200)
    remedy = _remedy(failure, api.host)
    found, status = f"{name}: {failure.reason}, {milliseconds} ms", failure.status or None
    return (warning if another_works else problem)(subject, found, remedy, **values, status=status)


def _remedy(failure: ChatFailure, host: str) -> str:
    if failure.fault is not ChatFault.STATUS:
        return _REMEDIES[failure.fault].format(host=re.sub(r":\d+$", "", host))
    if 300 <= failure.status < 400:
        return "set the url to the target of the redirect, which is not followed"
    if failure.status >= 500:
        return "the API itself fails: wait, or read the log of its server"
    return _STATUS_REMEDIES.get(failure.status, "look up this status in the documentation of the API")
