"""The base voices: whose speech the voice tint moves toward the asker, and which of them is nearest to an asker.

A base voice is measured once on a text with all vowels and most consonants of a language, which takes seconds. A file
of the package has what was measured of the usual ones, and a file beside Kokoro keeps that of the others.
"""

import hashlib
import io
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mirrorchat.embedded.voice_tint import PROFILE_SIZE, Array, Profile, similarity, speaker_features
from mirrorchat.engines import Language
from mirrorchat.small.archive import read_tables

HIBARI_VOICE = "heart"
CACHE_FILE = "base_voices.npz"
MEASURED_BASES = Path(__file__).with_name("measured_bases.npz")  # scripts/make_measured_bases.py makes it

_log = logging.getLogger(__name__)

_FORMAT = "2"
_LARGEST_CACHE_BYTES = 5_000_000

# Kokoro's Mandarin voices, and its Japanese ones for where these are not installed. The first is the neutral voice.
_MANDARIN = ("zf_xiaoxiao", "zm_yunjian", "zf_xiaoyi", "zm_yunxi")
# jf_alpha sounds best, but mispronounces 30 of 129 characters, to the ears of Whisper base; this woman 9, the man 12. A
# mean of all four women mispronounces 7, but sounds less natural once it is tinted.
_JAPANESE = ("jf_gongitsune", "jm_kumo")
_ENGLISH_MAN = "jm_kumo"

CALIBRATION = {
    Language.ENGLISH: "We saw a huge boat leave the quiet harbour, while five children played with yellow balls. "
    "Their teacher usually enjoys good books about food, sugar and the weather.",
    Language.CHINESE: "早上我和朋友去公园散步，看见湖边有许多红色的花。女儿问老师，为什么春天会下雨？",
}


@dataclass(frozen=True)
class BaseVoice:
    """A voice of hibari or a style of Kokoro, and the language that it speaks."""

    name: str
    language: Language

    @property
    def is_mans(self) -> bool:
        """Return whether it is a man's: Kokoro's names have the language, the sex, and the name itself."""
        return self.name[1:3] == "m_"


def base_voices(kokoro: Collection[str]) -> list[BaseVoice]:
    """Return the base voices that can be had with Kokoro's voices; the first of a language is the neutral one."""
    english = [HIBARI_VOICE, *(name for name in (_ENGLISH_MAN,) if name in kokoro)]
    mandarin = [name for name in _MANDARIN if name in kokoro] or [name for name in _JAPANESE if name in kokoro]
    return [BaseVoice(name, Language.ENGLISH) for name in english] + [
        BaseVoice(name, Language.CHINESE) for name in mandarin
    ]


def nearest(profiles: Mapping[BaseVoice, Profile], asker: Profile, language: Language) -> BaseVoice:
    """Return the base voice of `language` that is most similar to the asker in pitch and timbre; the first in doubt.

    Where there are Mandarin voices they tell whether a woman's or a man's is nearer, in English, too: hibari's timbre
    is nearer than that of the English man to nearly everybody, so those two would give most men a woman's voice.
    """
    features = speaker_features(asker)

    def best(voices: Collection[BaseVoice]) -> BaseVoice:
        return max(voices, key=lambda voice: similarity(speaker_features(profiles[voice]), features))

    mandarin = [voice for voice in profiles if voice.language is Language.CHINESE]
    of_language = [voice for voice in profiles if voice.language is language]
    of_sex = [voice for voice in of_language if mandarin and voice.is_mans == best(mandarin).is_mans]
    return best(of_sex or of_language)


class MeasuredFile:
    """What was measured of the base voices: MEASURED_BASES, and what a file in `folder` adds, if there is a folder.

    A file that is missing or broken counts as empty.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / CACHE_FILE if folder else None
        self._records = _read(MEASURED_BASES) | (_read(self._file) if self._file else {})

    def get(self, voice: BaseVoice, fingerprint: str) -> Profile | None:
        """Return the profile of a voice whose styles have this fingerprint, or None."""
        record = self._records.get(_key(voice, fingerprint))
        try:
            return None if record is None else Profile.from_bytes(record.astype("<f8").tobytes())
        except ValueError:
            return None

    def put(self, voice: BaseVoice, fingerprint: str, profile: Profile) -> None:
        """Add a measurement. A folder that cannot be written costs the time of measuring at each start."""
        self._records[_key(voice, fingerprint)] = np.frombuffer(profile.to_bytes(), "<f8")
        if self._file is None or not self._file.parent.is_dir():
            return
        written = io.BytesIO()
        np.savez(written, names=np.array(list(self._records)), records=np.stack(list(self._records.values())))
        try:
            _replace(self._file, written.getvalue())
        except OSError as error:
            _log.info(
                "%s cannot be written (%s): the base voices are measured at each start", self._file, error.strerror
            )


def _read(file: Path) -> dict[str, Array]:
    try:
        tables = read_tables(file, limit_bytes=_LARGEST_CACHE_BYTES)
        names, records = tables["names"], tables["records"].astype(np.float64)
    except (OSError, ValueError, KeyError):
        return {}
    if names.ndim != 1 or records.shape != (len(names), PROFILE_SIZE):
        return {}
    return dict(zip(map(str, names), records, strict=True))


def _key(voice: BaseVoice, fingerprint: str) -> str:
    """Return the name of a record, which changes with everything that it depends on."""
    parts = (_FORMAT, version("hibari-tts"), CALIBRATION[voice.language], fingerprint)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{voice.language.code}-{voice.name}-{digest[:16]}"


def _replace(file: Path, data: bytes) -> None:
    """Write `file` so that a reader sees either the old or the new content."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
