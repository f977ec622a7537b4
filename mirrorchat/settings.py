"""config.py, read once into frozen Settings. Unknown keys and bad values stop the start with a clear message.

A setting is defined once, by its field: default, kind of values, unit and help. `scripts/make_configuration_docs.py`
makes config.example.py and the tables of docs/configuration.md from these definitions.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirrorchat.access.api_keys import hashed
from mirrorchat.access.chat_apis import ChatApi as ChatApi  # for those who import it from here
from mirrorchat.access.chat_apis import chat_api_in_environment, is_own_address, read_chat_api
from mirrorchat.access.definitions import (
    FLAG,
    FOLDER,
    TEXT,
    Kind,
    choice,
    definitions,
    is_text,
    kind_of,
    list_of,
    number,
    optional,
    setting,
    suggestion,
    whole_number,
)  # fmt: skip
from mirrorchat.access.settings import (
    HOSTS,
    HOSTS_VARIABLE,
    KEYS,
    KEYS_VARIABLE,
    ORIGINS,
    PROXIES,
    check_host,
    check_origins,
    list_in_environment,
)
from mirrorchat.errors import ConfigurationError
from mirrorchat.speech.options import SAMPLING_BOUNDS, SPEED_BOUNDS, SpeechOptions

CONFIG_VARIABLE = "MIRRORCHAT_CONFIG"
CONFIG_NAMES = ("config.py", "chatgpt_api_config.py")  # the second is the older layout's, which held the list alone
RECOGNIZER_NAMES = ("auto", "wenet", "small", "embedded", "wenet:NAME")  # the last: any model of WeNet's package
SYNTHESIZER_NAMES = ("auto", "xtts", "small", "embedded")
WENET_WEIGHTS = ("auto", "fp32", "fp16w", "int8", "bf16", "fp16")
XTTS_WEIGHTS = ("auto", "fp32", "fp16w", "int8", "bf16", "fp16")
LANGUAGE_NAMES = ("chinese", "english")
_PROJECT = Path(__file__).resolve().parent.parent
SYSTEM_PROMPT = (
    "You answer questions that were asked aloud, and your answer is spoken aloud. Answer in {language}, in one to three"
    " short sentences of plain words: no lists, no markdown, no emoji, no links."
)
MOST_DEFAULT_THREADS = 4
QUESTION_LIMIT_MAX_S = 60.0
UPLOAD_LIMIT_MAX_MB = 100


def per_language(choices: tuple[str, ...]) -> Kind[Mapping[str, str]]:
    """Return the kind of one choice for both languages, or a dict of choices; "auto" for a language it leaves out."""

    def as_dict(value: Any) -> Any:
        return dict.fromkeys(LANGUAGE_NAMES, value) if isinstance(value, str) else value

    def accepts(value: object) -> bool:
        given = as_dict(value)
        return isinstance(given, Mapping) and all(
            language in LANGUAGE_NAMES and _is_among(choices, engine) for language, engine in given.items()
        )

    return kind_of(
        f"one of {', '.join(choices)}, or a dict with one of them for {' and '.join(LANGUAGE_NAMES)}",
        accepts,
        lambda value: {**dict.fromkeys(LANGUAGE_NAMES, "auto"), **as_dict(value)},
    )


def _is_among(choices: tuple[str, ...], engine: object) -> bool:
    """Tell whether an engine is one of `choices`. A choice that ends in `:NAME` stands for any NAME there."""
    stems = tuple(choice.removesuffix("NAME") for choice in choices if choice.endswith(":NAME"))
    return engine in choices or (isinstance(engine, str) and engine.startswith(stems) and not engine.endswith(":"))


def _is_prompt(value: object) -> bool:
    try:
        return is_text(value) and bool(str(value).format(language="English"))
    except (AttributeError, KeyError, IndexError, ValueError):
        return False


PROMPT = kind_of("a text without braces other than {language}", _is_prompt, str.strip)
DEVICE = kind_of(
    "auto, cpu, cuda or cuda:N",
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", value.strip())),
    str.strip,
)


def _cores() -> int:
    return max(1, min(MOST_DEFAULT_THREADS, os.cpu_count() or 1))


@dataclass(frozen=True)
class Settings:
    """Every setting, checked.

    `api_keys` are kept as hashes, `sha256:` and 64 digits, however they are given.
    """

    chatgpt_apis: tuple[ChatApi, ...] = setting(
        [],
        list_of(Kind("a dict that holds at least 'url'", read_chat_api)),
        "The server asks these chat APIs in order until one answers. Without this setting the environment may name one:"
        " `MIRRORCHAT_CHAT_URL` or `OPENAI_API_KEY`. If the list is empty, a parrot repeats the question.",
        computed="the chat API that the environment names, or none",
    )
    chat_cooldown_s: float = setting(
        30.0,
        number(0.0, 3600.0, "seconds"),
        "A chat API that failed is asked last for this long, so a dead first API does not delay every answer.",
    )
    chat_private_urls: bool = setting(
        False,
        FLAG,
        "Messages of `/v1/chat/completions` may hold the URL of an image, which the chat API fetches. `False` rejects"
        " URLs that lead to private, loopback or link-local addresses, and all but `https:` and `data:`. `True` allows"
        " such addresses and `http:`.",
    )
    system_prompt: str = setting(
        SYSTEM_PROMPT,
        PROMPT,
        "The chat API receives this prompt before the question. `{language}` becomes Chinese or English.",
    )
    recognizer: Mapping[str, str] = setting(
        dict.fromkeys(LANGUAGE_NAMES, "auto"),
        per_language(RECOGNIZER_NAMES),
        "This engine recognizes speech. `auto` selects the best that is installed: WeNet if its model is in"
        " `models_dir`, else the small model (Whisper base), else the embedded engine. `wenet:NAME` selects a model of"
        " WeNet's own package, for example `wenet:paraformer`, or a folder. The server does not start if an engine that"
        " is named here cannot load.",
    )
    synthesizer: Mapping[str, str] = setting(
        dict.fromkeys(LANGUAGE_NAMES, "auto"),
        per_language(SYNTHESIZER_NAMES),
        "This engine speaks the answers. `auto` selects the best that is installed: XTTS if its model is in"
        " `models_dir`, else the small models (hibari and Kokoro), else the embedded engine. The server does not start"
        " if an engine that is named here cannot load.",
    )
    models_dir: Path = setting(  # noqa: RUF009 - a field
        "~/.cache/mirrorchat",
        FOLDER,
        "`mirrorchat models install` puts each model into a folder of its own here: `wenet-zh`, `wenet-en`, `xtts-v2`,"
        " `whisper-base`, `kokoro`.",
    )
    device: str = setting(
        "auto",
        DEVICE,
        "XTTS and WeNet's checkpoints run on this device. `auto` selects the GPU if torch can use one. WeNet's runtime"
        " releases always run on the CPU.",
    )
    wenet_weights: str = setting(
        "auto",
        choice(WENET_WEIGHTS),
        "WeNet's checkpoints keep their weights in this format: fp32 or int8 on a CPU; fp32, fp16w, bf16 or fp16 on a"
        " GPU. `auto` selects int8 on a CPU that our C++ library supports, else fp32, and on a GPU the 16 bits that it"
        " computes fastest with (see `xtts_weights`).",
    )
    xtts_weights: str = setting(
        "auto",
        choice(XTTS_WEIGHTS),
        "XTTS keeps its weights in this format: fp32, fp16w (16 bits, computed in float32) or int8 (needs AVX512-VNNI)"
        " on a CPU; fp32, fp16w, bf16 or fp16 on a GPU. Fewer bits make it faster. `auto` selects fp16w on a CPU; on a"
        " GPU bf16 from compute capability 8.0 on, fp16 with 7.x, and fp16w below.",
    )
    xtts_batch: int = setting(8, whole_number(1, 64), "XTTS decodes at most this many sentences in one batch.")
    xtts_cache_mb: int = setting(
        2200,
        whole_number(1, 100_000, "MB"),
        "XTTS's KV cache uses at most this much memory. The longest sentence needs 255 MB, or half of it with int8 and"
        " with 16 bits on a GPU. If `xtts_batch` sentences do not fit, the batch is smaller.",
    )
    threads: int = setting(
        _cores,
        whole_number(1, 256),
        "Each engine uses this many threads on the CPU.",
        computed=f"the number of cores, at most {MOST_DEFAULT_THREADS}",
    )
    seed: int = setting(
        0,
        whole_number(0, 2**63 - 1),
        "Speech is sampled with this seed: the same text, voice and seed give the same samples on a CPU.",
    )
    speech_speed: float = setting(
        1.0,
        number(*SPEED_BOUNDS),
        "Speech is so many times as fast, at the same pitch. The field `speed` of a request overrides it.",
    )
    xtts_temperature: float | None = setting(
        None,
        optional(number(*SAMPLING_BOUNDS["temperature"])),
        "XTTS samples at this temperature. Here and below, `None` leaves it to the model's `config.json` (in XTTS v2:"
        " temperature 0.75, top-k 50, top-p 0.85, repetition penalty 5), and the field of a request overrides it.",
    )
    xtts_top_k: int | None = setting(
        None,
        optional(whole_number(0, int(SAMPLING_BOUNDS["top_k"][1]))),
        "XTTS samples among so many of the likeliest tokens; 0 means all.",
    )
    xtts_top_p: float | None = setting(
        None,
        optional(number(*SAMPLING_BOUNDS["top_p"])),
        "XTTS samples among the likeliest tokens whose probabilities sum to this.",
    )
    xtts_repetition_penalty: float | None = setting(
        None,
        optional(number(*SAMPLING_BOUNDS["repetition_penalty"])),
        "XTTS makes tokens that it has sampled already less likely by this factor.",
    )
    upload_limit_mb: int = setting(
        12,
        whole_number(1, UPLOAD_LIMIT_MAX_MB, "MiB"),
        "The server rejects larger uploads with 413. Give nginx's `client_max_body_size` the same value.",
    )
    question_limit_s: float = setting(
        60.0, number(1.0, QUESTION_LIMIT_MAX_S, "seconds"), "The server rejects longer recordings with 413."
    )
    turn_deadline_s: float = setting(
        100.0,
        number(1.0, 3600.0, "seconds"),
        "A turn that takes longer ends with 504. Give nginx's `proxy_read_timeout` a larger value.",
    )
    max_turns: int = setting(
        4,
        whole_number(1, 64),
        "The server runs at most this many turns at once, and fewer if speech would be slower than its playback.",
    )
    max_waiting: int = setting(
        16,
        whole_number(0, 256),
        "At most this many turns wait in the queue. A request is rejected with 503 and Retry-After if the queue is full"
        " or if the answer would not be complete within `turn_deadline_s`.",
    )
    session_ttl_s: float = setting(
        1800.0,
        number(1.0, 86_400.0, "seconds"),
        "A session expires after this long without a turn. Sessions are kept in memory only; they hold the latest part"
        " of the conversation, the caller's voice, and up to 29 s of the caller's speech.",
    )
    max_sessions: int = setting(
        1000,
        whole_number(1, 100_000),
        "The server keeps at most this many sessions. A new session then replaces the least recently used one of the"
        " caller (an API key, or an address without keys) who has most.",
    )
    session_memory_mb: int = setting(
        256,
        whole_number(8, 1_000_000, "MB"),
        "All sessions together take at most this much memory. Above it, the caller whose sessions take most loses the"
        " least recently used one.",
    )
    history_tokens: int = setting(
        2000,
        whole_number(0, 1_000_000, "tokens"),
        "A session remembers at most this much of the conversation; 0 turns this memory off. A Chinese character counts"
        " as one token, and four other characters count as one.",
    )
    voices_dir: Path = setting(  # noqa: RUF009 - a field
        "~/.local/share/mirrorchat/voices",
        FOLDER,
        "The server stores the voices that callers enrol through OpenAI's API in this folder, one file each. It stores"
        " nothing else about callers.",
    )
    api_aliases: bool = setting(
        True,
        FLAG,
        "Requests to OpenAI's API may name models and stock voices of other servers. They mean the loaded model and the"
        " neutral voice, and the header `X-MirrorChat-Ignored` says so. `False` rejects these names.",
    )
    host: str = setting(
        "127.0.0.1",
        TEXT,
        "The server listens on this address. An address that other machines can reach needs `api_keys`."
        " `MIRRORCHAT_HOST` overrides it.",
    )
    port: int = setting(
        9990, whole_number(1, 65535), "The server listens on this port. `MIRRORCHAT_PORT` overrides it."
    )
    api_keys: tuple[str, ...] = setting(
        [],
        KEYS,
        "Callers must send one of these keys as `Authorization: Bearer KEY`. `mirrorchat key` makes a key and its hash;"
        " list the hash, which does not reveal the key. If the list is empty, callers need no key."
        " `MIRRORCHAT_API_KEYS` overrides it.",
        secret=True,
    )
    rate_limit_per_minute: int = setting(
        0,
        whole_number(0, 1_000_000),
        "Each key may send this many requests a minute; the server rejects further ones with 429 and Retry-After."
        " Without `api_keys`, the limit is for each address. 0 means no limit.",
    )
    turns_per_key: int = setting(
        0,
        whole_number(0, 1000),
        "Each key may have this many turns running or in the queue; the server rejects further ones with 429 and"
        " Retry-After. Without `api_keys`, the limit is for each address. 0 means no limit.",
    )
    connections_per_address: int = setting(
        64,
        whole_number(1, 10_000),
        "One address may have this many connections; a further one closes the one that has waited longest. Addresses of"
        " `trusted_proxies` have no such limit.",
    )
    partial_requests_per_address: int = setting(
        8,
        whole_number(1, 1000),
        "So many requests of one address may be arriving at the same time, their head or their body; the server rejects"
        " further ones with 429 and Retry-After. Addresses of `trusted_proxies` have no such limit.",
    )
    allowed_hosts: tuple[str, ...] = setting(
        [],
        HOSTS,
        "Without `api_keys`, the server answers requests to `localhost`, to an address, and to these names; other names"
        " get 421, since a web page may have pointed one at this machine. `MIRRORCHAT_ALLOWED_HOSTS` overrides it.",
    )
    cors_origins: tuple[str, ...] = setting(
        [],
        ORIGINS,
        "Web pages of these origins may call the server from a browser (CORS). `*` allows all pages, and needs"
        " `api_keys`. Without `api_keys`, pages of other origins get 403.",
    )
    trusted_proxies: tuple[str, ...] = setting(
        ["127.0.0.0/8", "::1"],
        PROXIES,
        "The server believes `X-Forwarded-For` and `X-Forwarded-Proto` from these proxies. The default trusts a proxy"
        " on this machine.",
    )

    # What set `chatgpt_apis`: this setting itself or a variable of the environment; empty if nothing did.
    chat_source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_keys", tuple(dict.fromkeys(map(hashed, self.api_keys))))
        check_origins(self.cors_origins, self.api_keys)
        check_host(self.host, self.api_keys)

    def check_served(self) -> None:
        """Raise ConfigurationError when the server would ask itself, as OpenAI's variables for its callers make it."""
        own = next((api for api in self.chatgpt_apis if is_own_address(api.url, self.port)), None)
        if own is not None:
            source = self.chat_source or "chatgpt_apis"
            raise ConfigurationError(f"the chat API at {own.host} is this server itself ({source} is set)")

    @property
    def speech_options(self) -> SpeechOptions:
        """Return the options of speech for requests that name none."""
        return SpeechOptions(
            self.xtts_temperature, self.xtts_top_k, self.xtts_top_p, self.xtts_repetition_penalty, self.speech_speed
        )

    @property
    def upload_limit_bytes(self) -> int:
        return self.upload_limit_mb * 1024 * 1024


def load_settings(
    path: Path | None = None, *, environ: Mapping[str, str] | None = None, folder: Path | None = None, **overrides: Any
) -> Settings:
    """Return the settings of the configuration file, with `overrides` (names as in Settings) over it.

    The file is `path`, else the one that MIRRORCHAT_CONFIG names, else `config.py` or `chatgpt_api_config.py` in
    `folder` (the project's root by default), else none: every setting has a default. MIRRORCHAT_HOST, MIRRORCHAT_PORT
    (`scripts/serve --host --port` sets both), MIRRORCHAT_API_KEYS and MIRRORCHAT_ALLOWED_HOSTS override the file. The
    chat API that the environment names is taken if nothing else sets `chatgpt_apis`.

    Raises ConfigurationError for a file that is missing or does not run, an unknown setting or a bad value.
    """
    environ = os.environ if environ is None else environ
    found = path or config_file(environ, folder)
    values = _read_file(found) if found else {}
    values.update(_from_environment(environ))
    values.update({name: value for name, value in overrides.items() if value is not None})
    known = definitions(Settings)
    checked = {name: known[name].kind.read(name, value) for name, value in values.items()}
    if "chatgpt_apis" in checked:
        return Settings(**checked, chat_source="chatgpt_apis")
    if named := chat_api_in_environment(environ):
        api = ChatApi(named.url, named.key, named.model)
        return Settings(**checked, chatgpt_apis=(api,), chat_source=named.source)
    return Settings(**checked)


def config_file(environ: Mapping[str, str], folder: Path | None = None) -> Path | None:
    """Return the file that is read when none is given, whether or not it exists, or None for the defaults."""
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    folder = folder or _PROJECT
    return next((folder / name for name in CONFIG_NAMES if (folder / name).is_file()), None)


def settings_file(environ: Mapping[str, str]) -> Path:
    """Return the configuration file that a user writes a setting into, whether or not it exists."""
    return config_file(environ) or _PROJECT / CONFIG_NAMES[0]


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    port = environ.get("MIRRORCHAT_PORT", "")
    given = {
        "host": environ.get("MIRRORCHAT_HOST"),
        "port": int(port) if port.isdigit() else port or None,
        "api_keys": list_in_environment(environ, KEYS_VARIABLE),
        "allowed_hosts": list_in_environment(environ, HOSTS_VARIABLE),
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
    known = definitions(Settings)
    for name in values:
        if name not in known:
            raise ConfigurationError(f"{path}: unknown setting {name!r}{suggestion(name, known)}")
    return values


def _is_setting(name: str, value: object) -> bool:
    """Tell a setting from what a configuration file imports or defines to compute one."""
    return not name.startswith("_") and not callable(value) and type(value).__name__ != "module"
