"""The form of a question: hot words, and the limits that the documents state."""

import pytest
from support.places import ROOT

from mirrorchat.audio.decoding import SHORTEST_S
from mirrorchat.engines import REFERENCE_LIMIT_S, SPEECH_NEEDED_S
from mirrorchat.errors import InvalidField
from mirrorchat.server.form import HOTWORD_LIMIT_CHARS, HOTWORDS_LIMIT, TEXT_LIMIT_CHARS, check_hotwords, split_hotwords
from mirrorchat.settings import Settings


@pytest.mark.parametrize("text", ["Ada Lovelace, Babbage", "Ada Lovelace\n\nBabbage\n", " Ada Lovelace，、Babbage ,"])
def test_hot_words_are_split(text: str) -> None:
    assert split_hotwords(text) == ["Ada Lovelace", "Babbage"]
    assert split_hotwords(" ,\n") == []


@pytest.mark.parametrize("words", [["a"] * (HOTWORDS_LIMIT + 1), ["a" * (HOTWORD_LIMIT_CHARS + 1)]])
def test_hot_words_beyond_a_limit_are_refused_by_the_name_of_their_field(words: list[str]) -> None:
    with pytest.raises(InvalidField, match=f"keywords takes at most {HOTWORDS_LIMIT} words of") as caught:
        check_hotwords(words, "keywords")
    assert caught.value.param == "keywords"
    check_hotwords(["a" * HOTWORD_LIMIT_CHARS] * HOTWORDS_LIMIT, "keywords")


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("http_api.md", f"{SHORTEST_S} to {Settings().question_limit_s:g} s, at most {Settings().upload_limit_mb} MiB"),
        ("http_api.md", f"shorter than {SHORTEST_S} s"),
        ("http_api.md", f"at most {TEXT_LIMIT_CHARS:,} characters"),
        ("http_api.md", f"at most {HOTWORDS_LIMIT} words of at most {HOTWORD_LIMIT_CHARS} characters each"),
        ("http_api.md", f"up to {REFERENCE_LIMIT_S:g} s of speech"),
        ("engines.md", f"up to {REFERENCE_LIMIT_S:g} s of speech"),
        ("engines.md", {1.0: "less than one second of speech"}.get(SPEECH_NEEDED_S, "the number in words")),
    ],
)
def test_the_documents_state_the_limits(name: str, statement: str) -> None:
    assert statement in (ROOT / "docs" / name).read_text(encoding="utf-8")
