"""Odd texts of both languages: cut into sentences and written as spoken words, within a second of processor."""

import time

import pytest
from support import fuzzing
from support.fuzzing import Fuzz

from mirrorchat.embedded.workers.espeak import split_runs
from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.splitter import SentenceSplitter

TEXTS, LONG_TEXTS = 60, 12
LIMIT_S = 1.0


def speak(text: str, language: Language, case: str) -> None:
    """Take a reply as far as the embedded synthesizer would."""
    splitter, choose = SentenceSplitter(language), next(Fuzz(0, 1).cases(case, 1))[1]
    used_s = time.process_time()
    for delta in fuzzing.pieces(text, choose):
        for sentence in splitter.feed(delta):
            split_runs(normalize_text(sentence, language), language)
    for sentence in splitter.flush():
        split_runs(normalize_text(sentence, language), language)
    assert time.process_time() - used_s < LIMIT_S, case


@pytest.mark.parametrize("language", list(Language))
def test_fuzz_of_texts(fuzz: Fuzz, language: Language) -> None:
    for case, choose in fuzz.cases(f"a text in {language.value}", TEXTS):
        speak(fuzzing.text(choose, choose.randrange(1, 600)), language, case)


@pytest.mark.parametrize("language", list(Language))
def test_fuzz_of_long_texts(fuzz: Fuzz, language: Language) -> None:
    for case, choose in fuzz.cases(f"a long text in {language.value}", LONG_TEXTS):
        speak(fuzzing.text(choose, 4_096), language, case)
