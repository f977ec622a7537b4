"""The report of an evaluation as a table: a line for each measure, a column for each language."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_CELL_LIMIT = 48  # characters; the model names of engines may be longer
_Column = Mapping[str, Any]


def table(report: Mapping[str, Any]) -> str:
    """Return the table of a report (of `report.report`)."""
    languages: Mapping[str, _Column] = report["languages"]
    lines = [["", *languages]]
    for title, cell in _measures(report):
        cells = [cell(name, column) for name, column in languages.items()]
        if any(cells):
            lines.append([title, *(text[:_CELL_LIMIT] for text in cells)])
    return "\n".join([*_aligned(lines), "", *_notes(report)])


def _measures(report: Mapping[str, Any]) -> Sequence[tuple[str, Callable[[str, _Column], str]]]:
    def engine(stage: str) -> Callable[[str, _Column], str]:
        return lambda name, _: _engine(report["engines"][f"{stage}.{'zh' if name == 'chinese' else 'en'}"])

    return (
        (
            "recordings",
            lambda _, column: f"{column['clips']} of {column['speakers']} speakers, {column['seconds']:.0f} s",
        ),
        ("recognizer", engine("recognizer")),
        ("  error rate", lambda _, column: _rate(column["rate"], column["recognition"])),
        ("  substituted, deleted, inserted", lambda _, column: _edits(column["recognition"])),
        ("  seconds for 1 s of sound", lambda _, column: _number(column["recognition"], "elapsed_per_second")),
        ("synthesizer", engine("synthesizer")),
        ("  answers", lambda _, column: _spoken(column["answers"])),
        ("  error rate, by the configured recognizer", lambda _, column: _answer_rate(column)),
        ("  similarity to the asker", lambda _, column: _number(column["answers"], "similarity")),
        ("    same speaker (ceiling)", _ceiling),
        ("    other speakers (floor)", lambda _, column: _number(column["answers"], "floor")),
        ("  real-time factor", lambda _, column: _number(column["answers"], "real_time_factor", digits=3)),
        ("  first audio, seconds", _first_audio),
        ("  voice made before it, seconds", lambda _, column: _number(column["answers"], "voice_median_s", digits=3)),
    )


def _engine(info: Mapping[str, str]) -> str:
    return " ".join(filter(None, (info["name"], info["model"], info["device"])))


def _rate(name: str, errors: _Column | None) -> str:
    if errors is None or errors["error_rate"] is None:
        return "not measured"
    text = f"{name} {100 * errors['error_rate']:.1f} %"
    if errors["interval_95"]:
        low, high = errors["interval_95"]
        text += f" ({100 * low:.1f} to {100 * high:.1f})"
    return text + (f", {errors['failed']} failed" if errors["failed"] else "")


def _edits(errors: _Column | None) -> str:
    if errors is None:
        return ""
    return f"{errors['substituted']}, {errors['deleted']}, {errors['inserted']} of {errors['reference']}"


def _number(values: _Column | None, name: str, *, digits: int = 2) -> str:
    if values is None:
        return ""
    return "not measured" if values[name] is None else f"{values[name]:.{digits}f}"


def _spoken(answers: _Column | None) -> str:
    if answers is None:
        return ""
    voices = ", ".join(f"{count} {kind}" for kind, count in answers["voices"].items() if count)
    failed = f", {answers['failed']} failed" if answers["failed"] else ""
    spoken = f"{answers['spoken']} ({voices}), {answers['seconds']:.0f} s" if voices else "0"
    return spoken + failed


def _answer_rate(column: _Column) -> str:
    return "" if column["answers"] is None else _rate(column["rate"], column["answers"]["recognition"])


def _ceiling(_: str, column: _Column) -> str:
    text = _number(column["answers"], "ceiling")
    halves = column["answers"] and column["answers"]["ceilings_by_halves"]
    return f"{text} ({halves} by halves)" if halves and column["answers"]["ceiling"] is not None else text


def _first_audio(_: str, column: _Column) -> str:
    answers = column["answers"]
    if answers is None or answers["first_audio_median_s"] is None:
        return ""
    return f"{answers['first_audio_median_s']:.3f} (at most {answers['first_audio_max_s']:.3f})"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _notes(report: Mapping[str, Any]) -> list[str]:
    notes = [f"{name}: {column['not_recognized']}" for name, column in report["languages"].items()
             if column["not_recognized"]]  # fmt: skip
    if report["no_similarity"]:
        notes.append(f"speaker similarity was not measured: {report['no_similarity']}")
    hardware, settings = report["hardware"], report["settings"]
    computer = ", ".join([hardware["cpu"], f"{settings['threads']} threads", *hardware["gpus"]])
    notes.append(f"on {computer}; wenet_weights {settings['wenet_weights']}, xtts_weights {settings['xtts_weights']}")
    if report["doubts"]:
        notes.append(f"no claim about real models and voices: {'; '.join(report['doubts'])}")
    return notes
