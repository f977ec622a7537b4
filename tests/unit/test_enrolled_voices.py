"""The store of enrolled voices: what is kept, whose it is, and that a file of anybody else's making does no harm."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirrorchat.errors import InvalidField, NotFound, TooManyVoices, Unavailable, VoiceExists
from mirrorchat.turn import enrolled_voices
from mirrorchat.turn.enrolled_voices import EnrolledVoices, Part, checked_name

PARTS = [Part("embedded", "model 1", b"the voice's numbers")]


def test_files_are_for_the_servers_user_alone(tmp_path: Path) -> None:
    store = EnrolledVoices(tmp_path / "deep" / "voices")
    assert not (tmp_path / "deep").exists()  # nothing is made before there is something to keep
    voice = store.enrol("owner", "Anna", PARTS)
    assert os.listdir(tmp_path / "deep" / "voices") == [f"{voice.id}.voice"]
    assert stat.S_IMODE((tmp_path / "deep" / "voices").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep" / "voices" / f"{voice.id}.voice").stat().st_mode) == 0o600


def test_nobody_finds_a_voice_of_another_owner(tmp_path: Path) -> None:
    store = EnrolledVoices(tmp_path)
    mine, theirs = store.enrol("a", "Anna", PARTS), store.enrol("b", "Anna", PARTS)
    assert mine.id != theirs.id and store.of("a") == [mine] and store.of("b") == [theirs] and store.of("") == []
    assert store.find("b", "Anna") == theirs
    for id_or_name in (mine.id, mine.id.upper(), f"../{mine.id}", "", "nobody"):
        with pytest.raises(NotFound):
            store.find("b", id_or_name)
        with pytest.raises(NotFound):
            store.delete("b", id_or_name)
    assert store.of("a") == [mine]


def test_deleting_removes_the_file(tmp_path: Path) -> None:
    store = EnrolledVoices(tmp_path)
    first, second = store.enrol("a", "Anna", PARTS), store.enrol("a", "Bert", PARTS)
    assert store.delete("a", "ANNA") == first
    assert os.listdir(tmp_path) == [f"{second.id}.voice"]
    with pytest.raises(NotFound):
        store.delete("a", first.id)


def test_names_are_unique_for_each_owner_also_when_enrolled_at_once(tmp_path: Path) -> None:
    store = EnrolledVoices(tmp_path)

    def enrol(_: int) -> bool:
        try:
            store.enrol("a", "Anna", PARTS)
        except VoiceExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enrol, range(16))) == 1
    assert len(os.listdir(tmp_path)) == 1
    with pytest.raises(VoiceExists):
        store.check_room("a", "anna")


def test_an_owner_has_so_many_voices_and_others_have_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolled_voices, "VOICES_PER_OWNER", 2)
    store = EnrolledVoices(tmp_path)
    for name in ("one", "two"):
        store.enrol("a", name, PARTS)
    with pytest.raises(TooManyVoices):
        store.enrol("a", "three", PARTS)
    store.enrol("b", "three", PARTS)
    store.delete("a", "one")
    store.enrol("a", "three", PARTS)


def test_a_folder_that_cannot_be_written_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="voices_dir") as refused:
        EnrolledVoices(tmp_path / "file" / "voices").enrol("a", "Anna", PARTS)
    assert refused.value.retry_after_s


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "a\x00b", "Default", "voice_1", "\u202eabc", "a/b"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(InvalidField):
        checked_name(name, ("default",))


def test_names_are_kept_in_one_form(tmp_path: Path) -> None:
    name = " Ame\u0301lie "
    assert checked_name(name, ()) == "Am\u00e9lie"
    store = EnrolledVoices(tmp_path)
    voice = store.enrol("a", checked_name(name, ()), PARTS)
    assert store.find("a", name) == voice  # as it was given
    assert checked_name("小明", ()) == "小明"


def header(**changes: object) -> bytes:
    parts = [{"engine": "embedded", "model": "WORLD voice tint 1", "bytes": 10}]
    fields = {"format": 1, "owner": "a", "name": "n", "created_at": 1, "parts": parts, "sample_bytes": 0} | changes
    return json.dumps(fields).encode() + b"\n0123456789"


HOSTILE = [
    b"", b"\n", b"{}\n", b"[]\n", b"null\n", b"[" * 4000 + b"\n", b"{" * 100_000, b"\x80\xff\n", header(format=2),
    header(owner=None), header(name=5), header(parts=[]), header(parts=[5]), header(parts="x"), header(created_at="1"),
    header(parts=[{"engine": "e", "model": "m", "bytes": -1}]), header(sample_bytes=1 << 60),
    header(created_at=1 << 70), header(parts=[{"engine": "e", "model": "m", "bytes": 1 << 40}]),
    header(parts=[{"engine": [], "model": "m"}]),
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE)
def test_a_file_that_is_no_voice_is_passed_over(tmp_path: Path, data: bytes) -> None:
    store, voice_id = EnrolledVoices(tmp_path), "voice_" + "0" * 32
    (tmp_path / f"{voice_id}.voice").write_bytes(data)
    (tmp_path / "voice_short.voice").write_bytes(header())
    (tmp_path / "other").write_bytes(header())
    assert store.of("a") == []
    with pytest.raises(NotFound):
        store.find("a", voice_id)
    assert store.enrol("a", "n", PARTS) in store.of("a")


def test_what_a_killed_server_has_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    voice = EnrolledVoices(tmp_path).enrol("a", "n", PARTS)
    (tmp_path / f".voice_{'0' * 32}").write_bytes(header()[:20])
    (tmp_path / "another file").write_bytes(b"")
    EnrolledVoices(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["another file", f"{voice.id}.voice"]
