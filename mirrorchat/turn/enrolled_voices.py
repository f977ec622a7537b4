"""Enrolled voices: one file for each voice in one folder; its id cannot be guessed.

A file is a line of JSON, the header, and the bytes whose sizes it holds: the voice for each synthesizer and, if the
caller asked for it, the sample as a wav. The reader treats files as hostile: it bounds every size, checks every name,
and runs nothing. Enrolment, deletion and the removal of unfinished files write here. Example:

    voices = EnrolledVoices(folder)
    enrolled = voices.enrol(owner, "Anna", [Part("xtts", synthesizer.voice_model, voice.to_bytes())])
    voice = voices.load(voices.find(owner, "anna"), synthesizer)
"""

import json
import os
import re
import secrets
import threading
import time
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirrorchat.engines import Synthesizer, Voice
from mirrorchat.errors import (
    InvalidField,
    NotFound,
    OtherModelsVoice,
    TooManyVoices,
    Unavailable,
    VoiceExists,
    log_unexpected,
)

VOICES_PER_OWNER = 100
NAME_LIMIT_CHARS = 64
ID_PREFIX = "voice_"
SUFFIX = ".voice"
HEADER_LIMIT_BYTES = 8_192
PART_LIMIT_BYTES = 4_000_000  # of one synthesizer's voice; XTTS's takes 130 kB
SAMPLE_LIMIT_BYTES = 8_000_000  # a minute at 48 kHz in 16 bits is 5.8 MB

_ID = re.compile(rf"{ID_PREFIX}[0-9a-f]{{32}}", re.ASCII)


@dataclass(frozen=True)
class Part:
    """The voice of one synthesizer: the engine's name, the model that computes its voices, and the voice as bytes."""

    engine: str
    model: str
    data: bytes


@dataclass(frozen=True)
class EnrolledVoice:
    """The metadata of a voice. `created_at` is in Unix seconds; `sample` tells whether the sample is kept."""

    id: str
    owner: str
    name: str
    created_at: int
    models: tuple[tuple[str, str], ...]  # engine and model of each part
    sample: bool


class EnrolledVoices:
    """The voices in `folder`, which the first enrolment makes. Thread-safe; each server needs a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        with suppress(OSError):  # no folder yet
            for unfinished in folder.glob(f".{ID_PREFIX}*"):  # left by a server that was killed while it wrote
                unfinished.unlink()

    def enrol(self, owner: str, name: str, parts: Sequence[Part], sample: bytes = b"") -> EnrolledVoice:
        """Write a voice of `owner` and return its metadata.

        Arguments:
            owner: the digest of the caller's API key.
            name: a name that `checked_name` returned.
            parts: the voice for each synthesizer.
            sample: the recording as a wav, or nothing.

        Raises:
            VoiceExists: the owner has a voice of that name.
            TooManyVoices: the owner has VOICES_PER_OWNER voices.
            Unavailable: the folder cannot be written.
        """
        with self._lock:
            self.check_room(owner, name)
            models = tuple((part.engine, part.model) for part in parts)
            voice_id = ID_PREFIX + secrets.token_hex(16)
            voice = EnrolledVoice(voice_id, owner, name, int(time.time()), models, bool(sample))
            sizes = [len(part.data) for part in parts]
            whole = _header(voice, sizes, len(sample)) + b"".join(part.data for part in parts) + sample
            try:
                self._write(voice_id, whole)
            except OSError as error:
                log_unexpected(error)
                raise _cannot_write("kept") from None
        return voice

    def check_room(self, owner: str, name: str) -> None:
        """Raise VoiceExists or TooManyVoices if `owner` cannot enrol a voice called `name`."""
        kept = self.of(owner)
        if any(folded(voice.name) == folded(name) for voice in kept):
            raise VoiceExists(f"there is a voice {name} already; delete it, or choose another name", param="name")
        if len(kept) >= VOICES_PER_OWNER:
            raise TooManyVoices(f"{VOICES_PER_OWNER} voices are kept already, which is the most; delete one first")

    def of(self, owner: str) -> list[EnrolledVoice]:
        """Return the voices of `owner`, oldest first. Files that are no voices are ignored."""
        voices = [voice for voice in self._all() if voice.owner == owner]
        return sorted(voices, key=lambda voice: (voice.created_at, voice.id))

    def find(self, owner: str, id_or_name: str) -> EnrolledVoice:
        """Return the voice of `owner` with this id or else with this name. Raises NotFound."""
        if _ID.fullmatch(id_or_name):
            voice = self._read_header(id_or_name)
            found = voice if voice is not None and voice.owner == owner else None
        else:
            name = folded(id_or_name)
            named = (voice for voice in self.of(owner) if folded(voice.name) == name)
            found = next(named, None)
        if found is None:
            raise NotFound(f"there is no voice {id_or_name[:NAME_LIMIT_CHARS]!r} of yours", param="voice")
        return found

    def load(self, voice: EnrolledVoice, synthesizer: Synthesizer) -> Voice:
        """Return `voice` for `synthesizer`.

        Raises OtherModelsVoice when only other models have computed it, NotFound when it has been deleted or its file
        is damaged.
        """
        own = (synthesizer.info.name, synthesizer.voice_model)
        if own not in voice.models:
            others = ", ".join(f"{engine} ({model})" for engine, model in voice.models)
            raise OtherModelsVoice(
                f"the voice {voice.name} was computed with {others}; the synthesizer here is {own[0]} ({own[1]}): "
                "enrol it again",
                param="voice",
            )
        data = self._read_part(voice.id, voice.models.index(own))
        try:
            kept = synthesizer.restore(data)
            return replace(kept, reason=_as_reason(kept.reason))
        except ValueError:
            raise NotFound(f"the file of the voice {voice.name} is damaged: enrol it again", param="voice") from None

    def delete(self, owner: str, id_or_name: str) -> EnrolledVoice:
        """Delete the file of a voice. Raises NotFound, and Unavailable when the folder cannot be written."""
        with self._lock:
            voice = self.find(owner, id_or_name)
            try:
                self._path(voice.id).unlink(missing_ok=True)
            except OSError as error:
                log_unexpected(error)
                raise _cannot_write("deleted") from None
        return voice

    def _path(self, voice_id: str) -> Path:
        return self._folder / f"{voice_id}{SUFFIX}"

    def _all(self) -> Iterator[EnrolledVoice]:
        with suppress(OSError):  # no folder yet, or none at all
            for name in sorted(os.listdir(self._folder)):
                voice_id = name.removesuffix(SUFFIX)
                if name.endswith(SUFFIX) and _ID.fullmatch(voice_id):
                    voice = self._read_header(voice_id)
                    if voice is not None:
                        yield voice

    def _read_header(self, voice_id: str) -> EnrolledVoice | None:
        """Return the metadata in the file of `voice_id`; None if there is no such file, or it is no voice."""
        try:
            with self._path(voice_id).open("rb") as file:
                fields = _fields(file.readline(HEADER_LIMIT_BYTES))
        except (OSError, ValueError):
            return None
        models = tuple((part["engine"], part["model"]) for part in fields["parts"])
        owner, name, created_at = fields["owner"], fields["name"], fields["created_at"]
        return EnrolledVoice(voice_id, owner, name, created_at, models, bool(fields["sample_bytes"]))

    def _read_part(self, voice_id: str, index: int) -> bytes:
        try:
            with self._path(voice_id).open("rb") as file:
                sizes = [part["bytes"] for part in _fields(file.readline(HEADER_LIMIT_BYTES))["parts"]]
                file.seek(sum(sizes[:index]), os.SEEK_CUR)
                return file.read(sizes[index])
        except (OSError, ValueError, IndexError):
            raise NotFound("the voice has been deleted, or its file is damaged", param="voice") from None

    def _write(self, voice_id: str, data: bytes) -> None:
        """Write a voice's file completely or not at all; only the server's user can read it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / f".{voice_id}"
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self._path(voice_id))
        finally:
            fresh.unlink(missing_ok=True)


def checked_name(name: str, reserved: Collection[str]) -> str:
    """Return `name` normalized. Raises InvalidField if it is empty, too long, not printable or `reserved` (folded)."""
    text = _normal(name)
    if not 0 < len(text) <= NAME_LIMIT_CHARS or not text.isprintable() or "/" in text:  # / ends a name in a URL
        raise InvalidField(f"name must be 1 to {NAME_LIMIT_CHARS} printable characters without /", param="name")
    if folded(text) in reserved or folded(text).startswith(ID_PREFIX):
        raise InvalidField(f"name may not be {text}, which names another voice; choose another name", param="name")
    return text


def _cannot_write(what: str) -> Unavailable:
    return Unavailable(f"the voice cannot be {what}: the server's voices_dir cannot be written", retry_after_s=60)


def folded(name: str) -> str:
    """Return `name` as names are compared: in any case, and in one form of each character."""
    return _normal(name).casefold()


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _as_reason(text: str) -> str:
    """Return `text` without the characters that a header cannot hold."""
    return "".join(character for character in text if character.isascii() and character.isprintable())[:200]


def _header(voice: EnrolledVoice, sizes: Sequence[int], sample_bytes: int) -> bytes:
    parts = [
        {"engine": engine, "model": model, "bytes": size}
        for (engine, model), size in zip(voice.models, sizes, strict=True)
    ]
    fields = {"format": 1, "owner": voice.owner, "name": voice.name, "created_at": voice.created_at}
    return json.dumps(fields | {"parts": parts, "sample_bytes": sample_bytes}).encode() + b"\n"


def _fields(line: bytes) -> dict[str, Any]:
    """Return a header's fields. Raises ValueError if one that the server uses is invalid."""
    try:
        fields: Any = json.loads(line)
    except RecursionError:
        raise ValueError("no voice's header") from None
    parts = fields.get("parts") if isinstance(fields, dict) and fields.get("format") == 1 else None
    texts = isinstance(parts, list) and all(isinstance(fields.get(name), str) for name in ("owner", "name"))
    if not parts or not texts or not all(map(_is_part, parts)):
        raise ValueError("no voice's header")
    if not _is_size(fields.get("sample_bytes"), SAMPLE_LIMIT_BYTES) or not _is_size(fields.get("created_at"), 1 << 40):
        raise ValueError("no voice's header")
    return dict(fields)


def _is_part(part: object) -> bool:
    return (
        isinstance(part, Mapping)
        and isinstance(part.get("engine"), str)
        and isinstance(part.get("model"), str)
        and _is_size(part.get("bytes"), PART_LIMIT_BYTES)
    )


def _is_size(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit
