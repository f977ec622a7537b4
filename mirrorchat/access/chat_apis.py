"""Chat APIs: an entry of the list, URLs as providers print them, and the chat API that the environment names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mirrorchat.access.definitions import (
    HEADERS,
    JSON_OBJECT,
    URL,
    definitions,
    is_text,
    kind_of,
    number,
    optional,
    required,
    setting,
    suggestion,
    whole_number,
)
from mirrorchat.access.settings import is_loopback
from mirrorchat.errors import ConfigurationError

OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_CHAT_MODEL = "gpt-4o-mini"
CHAT_KEY = kind_of(
    "a text of printable ASCII characters, or an empty one",
    lambda value: isinstance(value, str) and value.isascii() and (value.isprintable() or not value),
    str.strip,
)
CHAT_MODEL = kind_of(
    "a text of printable characters that is not empty",
    lambda value: is_text(value) and str(value).strip().isprintable(),  # it stands in headers and logs
    str.strip,
)

TIMEOUT = number(0.1, 3600.0, "seconds")

_COMPLETIONS = ("completions", "chatcompletion")  # how the last part of an endpoint begins; the second is MiniMax's
_OLLAMA_CHAT = "/api/chat"  # of Ollama's own API, whose answers the chat client reads too
# What people copy instead of a base URL: other endpoints beside these. Without a version before it, `/models` is the
# base URL of Azure's API.
_OTHER_ENDPOINT = re.compile(r"(?<=/v[0-9])([a-z0-9]{0,10})/(?:models|responses|messages|embeddings)$")
_OLLAMA_ENDPOINTS = ("/api/generate", "/api/tags")

_DEFAULT_PORTS = {"http": 80, "https": 443}
_URLS = ("MIRRORCHAT_CHAT_URL", "OPENAI_BASE_URL")
_KEYS = ("MIRRORCHAT_CHAT_KEY", "OPENAI_API_KEY")
_MODELS = ("MIRRORCHAT_CHAT_MODEL", "OPENAI_MODEL")
CHAT_VARIABLES = (*_URLS, *_KEYS, *_MODELS)


def completed_url(url: str) -> str:
    """Return the endpoint of chat completions for a URL as providers print it. Its query stays behind the path.

    A path that ends in an endpoint of completions stays, and so does that of Ollama's own API. Any other one gets
    `/chat/completions`, and `/v1` before it where there is no path.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if path != _OLLAMA_CHAT and not path.rpartition("/")[2].startswith(_COMPLETIONS):
        base = _base_path(path)
        path = f"{base}/completions" if base.endswith("/chat") else f"{base or '/v1'}/chat/completions"
    return urlunsplit(parts._replace(path=path, fragment=""))


def is_own_address(url: str, port: int) -> bool:
    """Return whether `url` is that of a server on this computer that listens on `port`."""
    parts = urlsplit(url)
    return is_loopback(parts.hostname or "") and (parts.port or _DEFAULT_PORTS.get(parts.scheme)) == port


def _base_path(path: str) -> str:
    """Return a path without the endpoint at its end that is not of chat completions."""
    return "" if path in _OLLAMA_ENDPOINTS else _OTHER_ENDPOINT.sub(r"\1", path)


def _unquoted(value: str) -> str:
    """Return `value` without the quotes that `docker run --env-file` keeps around it."""
    value = value.strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1].strip() if quoted else value


@dataclass(frozen=True)
class ChatApi:
    """One chat API of the ordered list: an OpenAI-style chat-completions endpoint. Only `url` has no default."""

    url: str = field(
        repr=False,  # a user's URL may hold a password
        metadata=required(
            URL,
            "Requests go to this URL: a base URL as the provider prints it, or the full endpoint. A URL that does not"
            " end in `/completions` gets `/chat/completions`, and `/v1` before it where there is no path; a query stays"
            " at the end.",
        ),
    )
    key: str = setting("", CHAT_KEY, "The API receives this key as a bearer token, unless it is empty.", secret=True)
    model: str = setting(DEFAULT_CHAT_MODEL, CHAT_MODEL, "This model answers.")
    timeout_s: float = setting(
        10.0,
        TIMEOUT,
        "The server waits at most this long for the connection and, once the first token has come, in each silence of"
        " the API.",
    )
    first_token_timeout_s: float = setting(
        60.0,
        TIMEOUT,
        "The server waits at most this long for the first token of the answer or of the reasoning before it. A model"
        " that is loaded first, or that reasons in silence, needs this time.",
    )
    total_timeout_s: float = setting(
        90.0, TIMEOUT, "The server waits at most this long for the whole answer, reasoning included."
    )
    temperature: float | None = setting(
        None, optional(number(0.0, 2.0)), "The API samples the answer at this temperature; `None` leaves it to the API."
    )
    max_tokens: int | None = setting(
        None,
        optional(whole_number(1, 1_000_000)),
        "The API writes at most this many tokens; `None` leaves it to the API.",
    )
    headers: Mapping[str, str] = setting({}, HEADERS, "Each request also carries these HTTP headers.", secret=True)
    extra_body: Mapping[str, Any] = setting(
        {},
        JSON_OBJECT,
        "Each request also carries these fields of its body, for example `chat_template_kwargs`. They override"
        " `temperature` and `max_tokens`, but never `model`, `messages` and `stream`.",
        secret=True,
    )

    @property
    def endpoint(self) -> str:
        """Return the URL that is asked: `url`, completed to the endpoint of chat completions."""
        return completed_url(self.url)

    @property
    def host(self) -> str:
        """Return `host[:port]`, the only part of the URL that logs and errors show: paths and queries may hold keys."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


def read_chat_api(name: str, entry: object) -> ChatApi:
    known = definitions(ChatApi)
    if not isinstance(entry, Mapping) or "url" not in entry:
        raise ConfigurationError(f"{name} must hold at least 'url'")
    for key in entry:
        if key not in known:
            raise ConfigurationError(f"{name}: unknown entry {key!r}{suggestion(str(key), known)}")
    return ChatApi(**{key: known[key].kind.read(f"{name}['{key}']", value) for key, value in entry.items()})


@dataclass(frozen=True)
class NamedApi:
    """The chat API that the environment names. `source` is the variable that decided so."""

    url: str
    key: str
    model: str
    source: str


def chat_api_in_environment(environ: Mapping[str, str]) -> NamedApi | None:
    """Return the chat API of MIRRORCHAT_CHAT_URL or of a key, or None if neither is set. Blank values count as unset.

    Where MIRRORCHAT_CHAT_URL is set, OPENAI_* are not read: OpenAI's key goes to no host that was not named with it.
    Raises ConfigurationError, which names the variable, for a bad value.
    """
    given = {name: value for name in CHAT_VARIABLES if (value := _unquoted(environ.get(name, "")))}
    if _URLS[0] in given:
        given = {name: value for name, value in given.items() if not name.startswith("OPENAI_")}
    url, key, model = (next((name for name in names if name in given), "") for names in (_URLS, _KEYS, _MODELS))
    source = url if url == _URLS[0] else key
    if source:
        return NamedApi(
            url=URL.read(url, given[url]) if url else OPENAI_URL,
            key=CHAT_KEY.read(key, given[key]) if key else "",
            model=CHAT_MODEL.read(model, given[model]) if model else DEFAULT_CHAT_MODEL,
            source=source,
        )
    if model == _MODELS[0]:
        raise ConfigurationError(f"{model} needs {_URLS[0]}, {_KEYS[0]} or {_KEYS[1]} beside it")
    return None
