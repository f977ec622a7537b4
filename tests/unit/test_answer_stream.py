"""Whatever a chat API sends is an answer or AnswerFailed, and however its bytes are cut it is the same."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorchat.chat.answer_stream import answer_chunks
from mirrorchat.chat.complaints import complaint, masked
from mirrorchat.chat.reasoning import OpeningMissing, ReasoningFilter
from mirrorchat.chat.stream import AnswerFailed

NAMES = (
    "choices", "delta", "message", "content", "text", "type", "error", "code", "msg", "detail", "status", "done",
    "finish_reason", "usage", "index", "reasoning_content", "tool_calls", "thought", "extra_content", "google",
    "success", "errors", "base_resp", "Response", "Error",
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 500) | st.sampled_from(["", "stop", "text", "Hi.", "<think>", "error"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
PIECES = st.lists(
    VALUES.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"data: ", b"data:", b"\n\n", b"\n", b": c\n", b"event: error\n"])
    | st.sampled_from([b"[DONE]", b"{", b"<", b"\xef\xbb\xbf", b"Hi"])
    | st.builds(
        lambda text: b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n",
        st.sampled_from(["Hi", " there.", "<think>Hm.</think>", "</think>", "\ud83d"]),
    ),
    max_size=8,
)  # fmt: skip


def read(body: list[bytes]) -> str:
    """Return the text of a body, or the reason why it is none."""
    try:
        return "".join(chunk.text for chunk in answer_chunks(body, ReasoningFilter()))
    except AnswerFailed as failure:
        return f"failed: {failure.reason}: {failure.message}"
    except OpeningMissing:
        return "reasoning"


@settings(max_examples=400, deadline=None)
@given(PIECES, st.integers(1, 9))
def test_any_body_is_an_answer_or_a_failure_however_it_is_cut(pieces: list[bytes], step: int) -> None:
    whole = b"".join(pieces)
    assert read([whole]) == read([whole[at : at + step] for at in range(0, len(whole), step)])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), st.booleans())
def test_any_object_is_an_error_or_none(body: dict[str, Any], whole: bool) -> None:
    message = complaint(body, whole=whole)
    assert message is None or "\n" not in masked(message, [])


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(min_size=8, max_size=30), st.text())
def test_a_secret_is_masked_wherever_it_stands(before: str, secret: str, after: str) -> None:
    assert secret not in masked(f"{before}{secret}{after}", [secret]) or secret in masked(before + after, [secret])
