"""Calls of tools as APIs stream them, and as clients of OpenAI's API understand them."""

from typing import Any

import pytest

from mirrorchat.chat.tool_calls import ToolCalls

Part = dict[str, Any]


def part(name: str | None = None, arguments: object = None, **fields: object) -> Part:
    function = {"name": name, "arguments": arguments}
    return {**fields, "function": {key: value for key, value in function.items() if value is not None}}


def collected(*deltas: object) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of each call, put together as OpenAI's clients do."""
    numbering, calls = ToolCalls(), dict[int, tuple[str, str, str]]()
    for delta in deltas:
        for each in numbering.numbered(delta):
            id, name, arguments = calls.get(each["index"], ("", "", ""))
            function = each["function"]
            assert each["index"] in calls or each["type"] == "function"
            calls[each["index"]] = (
                id + each.get("id", ""),
                name + function.get("name", ""),
                arguments + function.get("arguments", ""),
            )
    return [calls[index] for index in range(len(calls))]


@pytest.mark.parametrize(
    "deltas",
    [
        # OpenAI: the parts of a call share its index
        [[part("f", "", index=0, id="a", type="function")], [part(None, '{"x":', index=0)], [part(None, "1}", index=0)],
         [part("g", "{}", index=1, id="b", type="function")]],
        # Gemini: no index, each call whole
        [[part("f", '{"x":1}', id="a")], [part("g", "{}", id="b")]],
        [[part("f", '{"x":1}', id="a"), part("g", "{}", id="b")]],
        # older versions of Ollama: the same index with each call
        [[part("f", '{"x":1}', index=0, id="a")], [part("g", "{}", index=0, id="b")]],
        # id and name in every part
        [[part("f", '{"x":', index=0, id="a")], [part("f", "1}", index=0, id="a")], [part("g", "{}", index=1, id="b")]],
        # null and garbage
        [[None, 7, part("f", '{"x":1}', index=None, id="a")], "x", [part("g", "{}", index=None, id="b")]],
        [[part("f", '{"x":1}', index=4, id="a")], [part("g", None, index=9, id="b")], [part(None, "{}", index=9)]],
    ],
)  # fmt: skip
def test_every_call_has_an_index_of_its_own(deltas: list[object]) -> None:
    assert collected(*deltas) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_ollamas_own_calls_have_neither_an_index_nor_an_id_nor_texts() -> None:
    first, second = collected([part("f", {"x": "天"})], [part("f", {})])
    assert first[1:] == ("f", '{"x": "天"}') and second[1:] == ("f", "{}")
    assert first[0] and second[0] and first[0] != second[0]


def test_further_fields_are_kept() -> None:
    (call,) = ToolCalls().numbered([part("f", "{}", id="a", extra_content={"google": {"thought_signature": "s"}})])
    assert call["extra_content"] == {"google": {"thought_signature": "s"}}
