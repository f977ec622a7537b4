"""An Ollama on this machine, found where no chat API is set, so that the server can say how to use it.

Only its list of models is asked for. Nothing that a caller says is sent there before somebody sets it.
"""

import ipaddress
import json
import re
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mirrorchat.settings import Settings

HOST_VARIABLE = "OLLAMA_HOST"  # Ollama's own: where it listens
LIMIT_S = 0.3  # on this machine it answers within a few milliseconds
SUGGESTED_MODEL = "qwen2.5"
_HOST, _PORT = "127.0.0.1", 11434
_ANSWER_LIMIT_BYTES = 1_000_000  # each model takes about 400
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")  # the advice is a line for a shell


def ollama_advice(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the line that says how to use the Ollama on this machine; empty if there is none or a chat API is set."""
    if settings.chatgpt_apis or settings.chat_source:
        return ""
    host, port = _address(environ)
    models = _models(host, port)
    if models is None:
        return ""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    pull = "" if models else f"`ollama pull {SUGGESTED_MODEL}`, then "
    variables = f"MIRRORCHAT_CHAT_URL={url} MIRRORCHAT_CHAT_MODEL={models[0] if models else SUGGESTED_MODEL}"
    return f"an Ollama runs on this machine; to use it: {pull}`{variables} scripts/serve`"


def _address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Return where Ollama listens on this machine. OLLAMA_HOST counts if it names this machine."""
    named = environ.get(HOST_VARIABLE, "").strip()
    try:
        parts = urlsplit(named if "://" in named else f"//{named}")
        host, port = parts.hostname or _HOST, parts.port or _PORT
        address = ipaddress.ip_address(_HOST if host == "localhost" else host)
    except ValueError:  # the name of another machine, or no address at all
        return _HOST, _PORT
    if address.is_unspecified:  # it listens on every address of this machine
        return _HOST, port
    return (str(address), port) if address.is_loopback else (_HOST, _PORT)


def _models(host: str, port: int) -> list[str] | None:
    """Return the models that can chat, the most recently changed first; None if no Ollama answers."""
    try:
        answer = json.loads(_get(host, port, "/api/tags"))
        return [model["name"] for model in answer["models"] if _can_chat(model)]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None  # no server, or another one than Ollama


def _can_chat(model: Mapping[str, Any]) -> bool:
    """Tell whether a model is no model for embeddings, and its name can stand in a line for a shell."""
    name, family = model["name"], str((model.get("details") or {}).get("family"))
    return bool(_MODEL.fullmatch(name)) and "embed" not in name.lower() and "bert" not in family.lower()


def _get(host: str, port: int, path: str) -> bytes:
    """Return what `path` holds, or nothing if the answer is no 200, too long, or not complete within LIMIT_S.

    HTTP/1.0 has no chunks, and its answer ends with the connection. No proxy is asked.
    """
    end = time.monotonic() + LIMIT_S
    received = bytearray()
    with socket.create_connection((host, port), LIMIT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode("ascii"))
        while len(received) <= _ANSWER_LIMIT_BYTES:
            connection.settimeout(max(0.001, end - time.monotonic()))
            data = connection.recv(65_536)
            if not data:
                head, _, body = bytes(received).partition(b"\r\n\r\n")
                return body if re.match(rb"HTTP/1\.[01] 200\b", head) else b""
            if time.monotonic() >= end:
                break
            received += data
    return b""
