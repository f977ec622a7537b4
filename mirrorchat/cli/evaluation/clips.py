"""Reads recordings with transcripts: a folder of audio files with a table (tsv).

The table is UTF-8 and has a line for each recording, with fields between tabs (no quoting, no escapes). The first line
names the columns in any order: `file` (a path inside the folder), `language` (a value of the API), `transcript`, and
optionally `speaker`, which is equal for clips of one person. Other columns and empty lines are ignored. An error names
the line of the table.
"""

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirrorchat.audio.decoding import decode_speech
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.error_rate import tokens
from mirrorchat.engines import Language
from mirrorchat.errors import EvaluationError, InvalidRequest

NEEDED = ("file", "language", "transcript")
SPEAKER = "speaker"
MAX_TABLE_BYTES = 8_000_000
MAX_CLIPS = 10_000
MAX_TRANSCRIPT_CHARS = 2_000  # 60 s of fast speech have 1,200
MAX_NAME_CHARS = 200

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ClipLimits:
    """The limits of a recording, which are those of a question."""

    size_bytes: int
    length_s: float


@dataclass(frozen=True)
class Clip:
    """A recording with its transcript and its speaker (None if unknown). `load` returns the audio."""

    name: str
    language: Language
    transcript: str
    speaker: str | None
    duration_s: float
    load: Callable[[], Audio] = field(repr=False)


def read_clips(place: Path, limits: ClipLimits) -> list[Clip]:
    """Return the clips of a tsv, or of a folder with one tsv, in the order of the table. Each file is decoded once.

    Raises EvaluationError, with the line of the table, for malformed lines, and for files that are missing, listed
    twice, too large, not audio or silent.
    """
    table = _table_in(place)
    root = table.parent.resolve()
    clips: list[Clip] = []
    lines: dict[Path, int] = {}
    for number, row in _rows(table):
        try:
            path = _path(root, row["file"], limits)
            if (first := lines.setdefault(path, number)) != number:
                raise ValueError(f"{_shown(row['file'])} is already in line {first}")
            clips.append(_clip(row, path, limits))
        except (ValueError, EvaluationError) as error:
            raise _refusal(table, number, str(error)) from None
        if len(clips) > MAX_CLIPS:
            raise _refusal(table, number, f"more than {MAX_CLIPS} recordings")
    if not clips:
        raise EvaluationError(f"{table.name} lists no recording")
    return clips


def _refusal(table: Path, number: int, why: str) -> EvaluationError:
    return EvaluationError(f"{table.name}, line {number}: {why}")


def _table_in(place: Path) -> Path:
    if not place.is_dir():
        return place
    found = sorted(path.name for path in place.iterdir() if path.suffix.lower() == ".tsv")
    if not found:
        raise EvaluationError(f"{place} has no tsv: a table with the columns {', '.join(NEEDED)} (and {SPEAKER})")
    if len(found) > 1:
        raise EvaluationError(f"{place} has {len(found)} tsv ({', '.join(found[:5])}): name the one to use")
    return place / found[0]


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the number and the fields by column of each line that is not empty, except the first."""
    lines = _lines(table)
    _, header = next(lines)
    names = [name.strip().lower() for name in header.split("\t")]
    if missing := [name for name in NEEDED if name not in names]:
        raise _refusal(table, 1, f"the first line names the columns; {', '.join(missing)} is not among them")
    if len(set(names)) < len(names):
        raise _refusal(table, 1, "a column is named twice")
    for number, line in lines:
        fields = line.split("\t")
        if line.strip() and len(fields) != len(names):
            raise _refusal(table, number, f"{len(fields)} fields, where the first line has {len(names)}")
        if line.strip():
            yield number, {name: text.strip() for name, text in zip(names, fields, strict=True)}


def _lines(table: Path) -> Iterator[tuple[int, str]]:
    try:
        if not stat.S_ISREG(table.stat().st_mode):  # reading a pipe would block
            raise EvaluationError(f"{table.name} is not a file")
        data = _read(table, MAX_TABLE_BYTES)
    except OSError as error:
        raise EvaluationError(f"{table.name} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise EvaluationError(f"{table.name} {error}") from None
    for number, line in enumerate(data.removeprefix(_BOM).split(b"\n"), 1):
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise _refusal(table, number, "not UTF-8") from None
        if any(character < " " and character != "\t" for character in text):
            raise _refusal(table, number, "control characters")
        yield number, text


def _read(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"is larger than {limit_bytes} bytes")
    return data


def _path(root: Path, name: str, limits: ClipLimits) -> Path:
    """Return the file `name` in `root`. Raises ValueError for a missing, outside or too large one."""
    if not name:
        raise ValueError("no file is named")
    try:
        path = (root / name).resolve(strict=True)
        found = path.stat()
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        path, found = Path(name), None
    if Path(name).is_absolute() or (found and not path.is_relative_to(root)) or ".." in Path(name).parts:
        raise ValueError(f"{_shown(name)} leads out of the folder")
    if found is None:
        raise ValueError(f"{_shown(name)} does not exist")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{_shown(name)} is not a file")
    if found.st_size > limits.size_bytes:
        raise ValueError(f"{_shown(name)} is larger than {limits.size_bytes} bytes")
    return path


def _clip(row: Mapping[str, str], path: Path, limits: ClipLimits) -> Clip:
    name, transcript = row["file"], row["transcript"]
    language = Language.parse(row["language"])
    if len(transcript) > MAX_TRANSCRIPT_CHARS:
        raise ValueError(f"the transcript is longer than {MAX_TRANSCRIPT_CHARS} characters")
    if not tokens(transcript, language):
        raise ValueError("the transcript has no words")
    speaker = row.get(SPEAKER) or None
    if speaker and len(speaker) > MAX_NAME_CHARS:
        raise ValueError(f"the speaker's name is longer than {MAX_NAME_CHARS} characters")

    def load() -> Audio:
        try:
            return decode_speech(_read(path, limits.size_bytes), limit_s=limits.length_s)
        except InvalidRequest as error:
            raise EvaluationError(f"{_shown(name)}: {error}") from None
        except ValueError as error:
            raise EvaluationError(f"{_shown(name)} {error}") from None
        except OSError as error:
            raise EvaluationError(f"{_shown(name)} cannot be read: {error.strerror}") from None

    return Clip(name, language, transcript, speaker, load().duration_s, load)


def _shown(name: str) -> str:
    """Return a file's name for a message: short, in one line, and without control characters."""
    short = name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}..."
    return short if short.isprintable() else ascii(short)
