"""Enrolled voices of real engines: each comes back as it was, to its own model, whatever stands in its file."""

import functools
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_tiny_xtts import make_checkpoint
from support.remembered_profiles import remembering_synthesizer
from support.speech import say

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedSynthesizer
from mirrorchat.embedded.voice_tint import TintVoice
from mirrorchat.engines import Language, Priority, Synthesizer, VoiceKind
from mirrorchat.errors import NotFound, OtherModelsVoice
from mirrorchat.turn.enrolled_voices import EnrolledVoices, Part

SPEECH = say("Here is somebody who speaks for long enough to be known again.", "en-us+m3")


@pytest.fixture(scope="module")
def embedded() -> EmbeddedSynthesizer:
    return remembering_synthesizer()


@functools.cache
def part_of(synthesizer: Synthesizer) -> Part:
    voice = synthesizer.voice([SPEECH])
    assert voice.kind is not VoiceKind.NEUTRAL
    return Part(synthesizer.info.name, synthesizer.voice_model, voice.to_bytes())


def header(**changes: object) -> bytes:
    parts = [{"engine": "embedded", "model": "WORLD voice tint 1", "bytes": 10}]
    fields = {"format": 1, "owner": "a", "name": "n", "created_at": 1, "parts": parts, "sample_bytes": 0} | changes
    return json.dumps(fields).encode() + b"\n0123456789"


def test_a_voice_comes_back_as_it_was(tmp_path: Path, embedded: EmbeddedSynthesizer) -> None:
    store = EnrolledVoices(tmp_path / "voices")
    enrolled = store.enrol("owner", "Anna", [Part("other", "m", b"x" * 100), part_of(embedded)])
    again = EnrolledVoices(tmp_path / "voices")
    assert again.find("owner", "anna") == again.find("owner", enrolled.id) == enrolled
    assert again.load(enrolled, embedded).to_bytes() == embedded.voice([SPEECH]).to_bytes()


def test_xtts_voices_are_kept_and_fit_their_own_model_only(tmp_path: Path) -> None:
    from mirrorchat.synth import XttsSynthesizer

    store = EnrolledVoices(tmp_path / "voices")
    make_checkpoint(tmp_path / "xtts-v2")
    make_checkpoint(tmp_path / "other" / "xtts-v2", seed=1)
    mine = XttsSynthesizer(tmp_path / "xtts-v2", device="cpu", threads=1)
    other = XttsSynthesizer(tmp_path / "other" / "xtts-v2", device="cpu", threads=1)
    try:
        enrolled = store.enrol("owner", "Anna", [part_of(mine)])
        voice = store.load(enrolled, mine)
        assert voice == mine.voice([SPEECH])
        options = {"seed": 0, "priority": Priority.FIRST, "context": Context.after(60)}
        assert list(mine.speak("Hello there.", voice, Language.ENGLISH, **options))  # type: ignore[arg-type]
        with pytest.raises(OtherModelsVoice, match="xtts"):  # the folder's name is the same, the weights are not
            store.load(enrolled, other)
        with pytest.raises(ValueError):
            mine.restore(voice.to_bytes()[:-4])
        with pytest.raises(ValueError):
            mine.restore(b"")
    finally:
        mine.close()
        other.close()


def test_a_file_holds_no_audio_unless_it_is_asked_for(tmp_path: Path, embedded: EmbeddedSynthesizer) -> None:
    store, wav = EnrolledVoices(tmp_path), encode_wav(SPEECH)
    without = store.enrol("owner", "without", [part_of(embedded)])
    kept = store.enrol("owner", "with", [part_of(embedded)], wav)
    assert (without.sample, kept.sample) == (False, True)
    assert b"RIFF" not in (tmp_path / f"{without.id}.voice").read_bytes()
    assert (tmp_path / f"{without.id}.voice").stat().st_size < 20_000
    assert (tmp_path / f"{kept.id}.voice").read_bytes().endswith(wav)
    assert store.load(kept, embedded) == store.load(without, embedded)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 300))
def test_whatever_the_numbers_of_a_voice_are_they_are_a_voice_or_refused(
    tmp_path: Path, embedded: EmbeddedSynthesizer, noise: bytes, at: int
) -> None:
    good = part_of(embedded).data
    data = noise if at == 0 else good[:at] + noise + good[at + len(noise) :]
    parts = [{"engine": "embedded", "model": embedded.voice_model, "bytes": len(data)}]
    (tmp_path / f"voice_{'0' * 32}.voice").write_bytes(header(parts=parts).partition(b"\n")[0] + b"\n" + data)
    store = EnrolledVoices(tmp_path)
    try:
        store.load(store.find("a", "n"), embedded)
    except NotFound as error:
        assert "damaged" in error.message


def test_a_part_that_is_cut_off_is_damaged(tmp_path: Path, embedded: EmbeddedSynthesizer) -> None:
    store = EnrolledVoices(tmp_path)
    voice = store.enrol("a", "n", [part_of(embedded)])
    path = tmp_path / f"{voice.id}.voice"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(NotFound, match="damaged"):
        store.load(voice, embedded)


def test_a_reason_that_no_header_can_say_is_cleaned(tmp_path: Path, embedded: EmbeddedSynthesizer) -> None:
    store = EnrolledVoices(tmp_path)
    data = TintVoice(VoiceKind.TINT, "a\r\nSet-Cookie: b=1 \u4e2d" + "x" * 500).to_bytes()
    voice = store.enrol("a", "n", [Part("embedded", embedded.voice_model, data)])
    reason = store.load(voice, embedded).reason
    assert reason.startswith("aSet-Cookie: b=1 x") and len(reason) == 200
