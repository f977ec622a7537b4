"""The calls of tools in an answer, in the form in which OpenAI's API streams them."""

import json
import secrets
from collections.abc import Mapping
from typing import Any


class ToolCalls:
    """Numbers the calls of one answer. Some APIs send no index, or the same one with each call.

    The first part of a call has its `index`, `id` and `type`. The parts after it have the `index` alone, and more of
    the arguments.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []  # of the calls, by our index
        self._sent: dict[int, int] = {}  # our index for each index of the API

    def numbered(self, parts: object) -> list[dict[str, Any]]:
        """Return the next `tool_calls` of the answer. What is no part of a call is left out."""
        if not isinstance(parts, list):
            return []
        return [self._numbered(part) for part in parts if isinstance(part, dict)]

    def _numbered(self, part: Mapping[str, Any]) -> dict[str, Any]:
        given = part.get("function")
        function = _as_texts(given) if isinstance(given, dict) else {}
        count = len(self._ids)
        index = self._index(part.get("index"), part.get("id"), has_name="name" in function)
        others = {name: value for name, value in part.items() if name not in ("index", "id", "type", "function")}
        if len(self._ids) > count:
            function = {"name": "", "arguments": "", **function}
            return {"index": index, "id": self._ids[index], "type": "function", "function": function, **others}
        function.pop("name", None)  # a repetition, which clients would append
        return {"index": index, "function": function, **others}

    def _index(self, sent: object, sent_id: object, *, has_name: bool) -> int:
        """Return our index of the call with this index and id of the API, either of which may be missing."""
        index = self._sent.get(sent, -1) if isinstance(sent, int) else len(self._ids) - 1
        id = sent_id if isinstance(sent_id, str) else ""
        if index < 0 or (has_name and (id != self._ids[index] if id else not isinstance(sent, int))):
            index = len(self._ids)
            self._ids.append(id or f"call_{secrets.token_hex(12)}")
        if isinstance(sent, int):
            self._sent[sent] = index
        return index


def _as_texts(function: Mapping[str, Any]) -> dict[str, str]:
    """Return the name and the arguments of a function, which Ollama's own API sends as an object."""
    texts = {name: value for name in ("name", "arguments") if isinstance(value := function.get(name), str) and value}
    if isinstance(function.get("arguments"), dict):
        texts["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return texts
