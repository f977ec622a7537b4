"""config.py, read once into frozen Settings. Unknown keys and bad values stop the start with a clear message."""

import dataclasses
import difflib
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mirrorchat.access.api_keys import hashed
from mirrorchat.access.settings import check_origins, keys_in_environment, read_keys, read_origins, read_proxies
from mirrorchat.errors import ConfigurationError

CONFIG_VARIABLE = "MIRRORCHAT_CONFIG"
CONFIG_NAMES = ("config.py", "chatgpt_api_config.py")  # the second is the older layout's, which held the list alone
DEFAULT_CHAT_MODEL = "gpt-4o-mini"
RECOGNIZER_NAMES = ("auto", "wenet", "embedded", "wenet:NAME")  # the last for any NAME: a model of WeNet's package
SYNTHESIZER_NAMES = ("auto", "xtts", "embedded")
WENET_WEIGHTS = ("auto", "fp32", "int8", "bf16", "fp16")
XTTS_WEIGHTS = ("auto", "fp32", "fp16w", "int8", "bf16", "fp16")
LANGUAGE_NAMES = ("chinese", "english")
SYSTEM_PROMPT = (
    "You answer questions that were asked aloud, and your answer is spoken aloud. Answer in {language}, in one to three"
    " short sentences of plain words: no lists, no markdown, no emoji, no links."
)


@dataclass(frozen=True)
class ChatApi:
    """One chat API of the ordered list: an OpenAI-style chat-completions endpoint. All times in seconds.

    `timeout_s` bounds the connection and every later silence; `first_token_timeout_s` the wait for the first piece
    of the answer; `total_timeout_s` the whole answer.
    """

    url: str = field(repr=False)  # a user's URL may hold a password
    key: str = field(default="", repr=False)
    model: str = DEFAULT_CHAT_MODEL
    timeout_s: float = 10.0
    first_token_timeout_s: float = 20.0
    total_timeout_s: float = 60.0
    temperature: float | None = None
    max_tokens: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def endpoint(self) -> str:
        """Return the full chat-completions URL: a base URL that ends in `/v1` is completed."""
        base = self.url.rstrip("/")
        return f"{base}/chat/completions" if base.endswith("/v1") else self.url

    @property
    def host(self) -> str:
        """Return `host[:port]`, the only part of the URL that logs and errors show: paths and queries may hold keys."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


@dataclass(frozen=True)
class Settings:
    """Every setting, checked. Units are in the names; `config.example.py` explains each.

    `api_keys` are kept as hashes, `sha256:` and 64 digits, however they are given.
    """

    chatgpt_apis: tuple[ChatApi, ...] = ()
    chat_cooldown_s: float = 30.0
    system_prompt: str = SYSTEM_PROMPT
    recognizer: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(LANGUAGE_NAMES, "auto"))
    synthesizer: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(LANGUAGE_NAMES, "auto"))
    device: str = "auto"
    wenet_weights: str = "auto"
    xtts_weights: str = "auto"
    xtts_batch: int = 8
    xtts_cache_mb: int = 2200
    threads: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))
    models_dir: Path = field(default_factory=lambda: Path("~/.cache/mirrorchat").expanduser())
    voices_dir: Path = field(default_factory=lambda: Path("~/.local/share/mirrorchat/voices").expanduser())
    upload_limit_mb: int = 12
    question_limit_s: float = 60.0
    turn_deadline_s: float = 100.0
    max_turns: int = 4
    max_waiting: int = 16
    host: str = "127.0.0.1"
    port: int = 9990
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    rate_limit_per_minute: int = 0
    turns_per_key: int = 0
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1")
    session_ttl_s: float = 1800.0
    max_sessions: int = 1000
    history_tokens: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_keys", tuple(dict.fromkeys(map(hashed, self.api_keys))))
        check_origins(self.cors_origins, self.api_keys)
        if not self.api_keys and not _is_loopback(self.host):
            raise ConfigurationError(
                f"host {self.host} lets other machines in: set api_keys in config.py (callers send one as"
                " 'Authorization: Bearer KEY'), or use host 127.0.0.1"
            )

    @property
    def upload_limit_bytes(self) -> int:
        return self.upload_limit_mb * 1024 * 1024


def load_settings(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None, **overrides: Any
) -> Settings:
    """Return the settings of the configuration file, with `overrides` (names as in Settings) over it.

    The file is `path`, else the one that MIRRORCHAT_CONFIG names, else `config.py` or `chatgpt_api_config.py` in
    `folder` (the project's root by default), else none: every setting has a default. MIRRORCHAT_HOST and
    MIRRORCHAT_PORT, which `scripts/serve --host --port` sets, and MIRRORCHAT_API_KEYS stand above the file.
    Raises ConfigurationError for a file that is missing or does not run, an unknown setting or a bad value.
    """
    environ = os.environ if environ is None else environ
    found = path or config_file(environ, folder)
    values = _read_file(found) if found else {}
    values.update(_from_environment(environ))
    values.update({name: value for name, value in overrides.items() if value is not None})
    return Settings(**{name: _READERS[name](name, value) for name, value in values.items()})


def config_file(environ: Mapping[str, str], folder: Path | None = None) -> Path | None:
    """Return the configuration file that counts where none is given, be it there or not, or None for the defaults."""
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    folder = folder or Path(__file__).resolve().parent.parent
    return next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    port = environ.get("MIRRORCHAT_PORT", "")
    given = {
        "host": environ.get("MIRRORCHAT_HOST"),
        "port": int(port) if port.isdigit() else port or None,
        "api_keys": keys_in_environment(environ),
    }
    return {name: value for name, value in given.items() if value}


def _read_file(path: Path) -> dict[str, Any]:
    """Run a configuration file and return its settings under their lower-case names."""
    namespace: dict[str, Any] = {"__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), namespace)
    except Exception as error:
        # only the kind: the text of a syntax error can quote the line that holds a key
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}{line}") from None
    public = {name: value for name, value in namespace.items() if _is_setting(name, value)}
    values = {name.lower(): value for name, value in public.items()}
    if len(values) < len(public):
        raise ConfigurationError(f"{path} gives a setting twice, in upper and in lower case")
    for name in values:
        if name not in _READERS:
            raise ConfigurationError(f"{path}: unknown setting {name!r}{_suggestion(name, _READERS)}")
    return values


def _is_setting(name: str, value: object) -> bool:
    """Tell a setting from what a configuration file imports or defines to compute one."""
    return not name.startswith("_") and not callable(value) and type(value).__name__ != "module"


def _suggestion(name: str, choices: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; the settings are {', '.join(sorted(choices))}"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a text that is not empty")
    return value.strip()


def _prompt(name: str, value: object) -> str:
    text = _text(name, value)
    try:
        text.format(language="English")
    except (KeyError, IndexError, ValueError):
        raise ConfigurationError(f"{name} may hold {{language}} and no other braces") from None
    return text


def _number(low: float, high: float) -> Callable[[str, object], float]:
    def read(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigurationError(f"{name} must be a number from {low:g} to {high:g}")
        return float(value)

    return read


def _integer(low: int, high: int) -> Callable[[str, object], int]:
    def read(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigurationError(f"{name} must be a whole number from {low} to {high}")
        return value

    return read


def _optional(read: Callable[[str, object], Any]) -> Callable[[str, object], Any]:
    return lambda name, value: None if value is None else read(name, value)


def _per_language(choices: tuple[str, ...]) -> Callable[[str, object], Mapping[str, str]]:
    def read(name: str, value: object) -> Mapping[str, str]:
        given = dict.fromkeys(LANGUAGE_NAMES, value) if isinstance(value, str) else value
        if not isinstance(given, Mapping) or not set(given) <= set(LANGUAGE_NAMES):
            raise ConfigurationError(f"{name} must be one name, or names for {' and '.join(LANGUAGE_NAMES)}")
        if bad := [engine for engine in given.values() if not _is_among(engine, choices)]:
            raise ConfigurationError(f"{name}: {bad[0]!r} is not one of {', '.join(choices)}")
        return {language: str(given.get(language, "auto")) for language in LANGUAGE_NAMES}

    return read


def _is_among(engine: object, choices: tuple[str, ...]) -> bool:
    """Tell whether an engine is one of `choices`; one that ends in `:NAME` stands for all that go on otherwise."""
    stems = tuple(choice.removesuffix("NAME") for choice in choices if choice.endswith(":NAME"))
    return engine in choices or (isinstance(engine, str) and engine.startswith(stems) and not engine.endswith(":"))


def _choice(choices: tuple[str, ...]) -> Callable[[str, object], str]:
    def read(name: str, value: object) -> str:
        if value not in choices:
            raise ConfigurationError(f"{name}: {value!r} is not one of {', '.join(choices)}")
        return str(value)

    return read


def _device(name: str, value: object) -> str:
    text = _text(name, value)
    kind, _, index = text.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ConfigurationError(f"{name} must be auto, cpu, cuda or cuda:N")
    return text


def _folder(name: str, value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigurationError(f"{name} must be the path of a folder")
    return Path(value).expanduser()


def _headers(name: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ConfigurationError(f"{name} must map header names to texts")
    return dict(value)


def _url(name: str, value: object) -> str:
    text = _text(name, value)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{name} must begin with http:// or https:// and name a host")
    return text


def _key(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not (value.isprintable() or not value):
        raise ConfigurationError(f"{name} must be a text of printable ASCII characters (empty when there is none)")
    return value.strip()


_SECONDS = _number(0.1, 3600.0)
_API_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "url": _url,
    "key": _key,
    "model": _text,
    "timeout_s": _SECONDS,
    "first_token_timeout_s": _SECONDS,
    "total_timeout_s": _SECONDS,
    "temperature": _optional(_number(0.0, 2.0)),
    "max_tokens": _optional(_integer(1, 1_000_000)),
    "headers": _headers,
}


def _apis(name: str, value: object) -> tuple[ChatApi, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"{name} must be a list of {{'url': ..., 'key': ...}}")
    return tuple(_api(f"{name}[{index}]", entry) for index, entry in enumerate(value))


def _api(name: str, entry: object) -> ChatApi:
    if not isinstance(entry, Mapping) or "url" not in entry:
        raise ConfigurationError(f"{name} must hold at least 'url'")
    for key in entry:
        if key not in _API_READERS:
            raise ConfigurationError(f"{name}: unknown entry {key!r}{_suggestion(str(key), _API_READERS)}")
    return ChatApi(**{key: _API_READERS[key](f"{name}['{key}']", value) for key, value in entry.items()})


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "chatgpt_apis": _apis,
    "chat_cooldown_s": _number(0.0, 3600.0),
    "system_prompt": _prompt,
    "recognizer": _per_language(RECOGNIZER_NAMES),
    "synthesizer": _per_language(SYNTHESIZER_NAMES),
    "device": _device,
    "wenet_weights": _choice(WENET_WEIGHTS),
    "xtts_weights": _choice(XTTS_WEIGHTS),
    "xtts_batch": _integer(1, 64),
    "xtts_cache_mb": _integer(1, 100_000),
    "threads": _integer(1, 256),
    "models_dir": _folder,
    "voices_dir": _folder,
    "upload_limit_mb": _integer(1, 100),
    "question_limit_s": _number(1.0, 60.0),
    "turn_deadline_s": _number(1.0, 3600.0),
    "max_turns": _integer(1, 64),
    "max_waiting": _integer(0, 256),
    "host": _text,
    "port": _integer(1, 65535),
    "api_keys": read_keys,
    "rate_limit_per_minute": _integer(0, 1_000_000),
    "turns_per_key": _integer(0, 1000),
    "cors_origins": read_origins,
    "trusted_proxies": read_proxies,
    "session_ttl_s": _number(1.0, 86_400.0),
    "max_sessions": _integer(1, 100_000),
    "history_tokens": _integer(0, 1_000_000),
    "seed": _integer(0, 2**63 - 1),
}
assert set(_READERS) == {entry.name for entry in dataclasses.fields(Settings)}
