"""An evaluation for people: a line for each result as it comes, then a table with a column for each language."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mirrorchat.cli.client.terminal import printable
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.recording import Answer, Heard

_CELL_LIMIT = 48  # characters; the model names of engines may be longer
_Column = Mapping[str, Any]


def row(clip: Clip, result: Heard | Answer | None) -> str:
    """Return the line of one result."""
    task = "spoken" if isinstance(result, Answer) else "heard"
    return f"{task:6}  {clip.language:7}  {_result(result)}  {printable(clip.name)}"


def _result(result: Heard | Answer | None) -> str:
    if result is None:
        return "not recognized"
    if result.failure:
        return f"failed: {printable(result.failure)}"
    if isinstance(result, Heard):
        return f"{_wrong(result)}, {result.elapsed_s:.2f} s"
    figures = [
        _wrong(result.heard) if result.heard else "",
        "" if result.mos is None else f"MOS {result.mos:.1f}",
        "" if result.similarity is None else f"similarity {result.similarity:.2f}",
        f"{result.elapsed_s:.2f} s for {result.duration_s:.2f} s",
    ]
    return ", ".join(filter(None, figures))


def _wrong(heard: Heard) -> str:
    return f"{heard.edits.errors} of {heard.edits.reference} wrong"


def table(report: Mapping[str, Any]) -> str:
    """Return the table of a report (of `report.report`)."""
    lines = [["", *report["heard"]]]
    for title, cell in _measures(report):
        cells = [cell(language) for language in report["heard"]]
        if any(cells):
            lines.append([title, *(text[:_CELL_LIMIT] for text in cells)])
    return "\n".join([*_aligned(lines), "", *_notes(report)])


def _measures(report: Mapping[str, Any]) -> Sequence[tuple[str, Callable[[str], str]]]:
    def engine(stage: str) -> Callable[[str], str]:
        return lambda name: _engine(report["engines"][f"{stage}.{'zh' if name == 'chinese' else 'en'}"])

    def heard(part: Callable[[_Column], str]) -> Callable[[str], str]:
        return lambda name: part(report["heard"][name])

    def spoken(part: Callable[[_Column], str]) -> Callable[[str], str]:
        return lambda name: part(report["spoken"][name]) if name in report["spoken"] else ""

    return (
        ("recordings", heard(lambda of: f"{of['clips']} of {of['speakers']} speakers, {of['seconds']:.0f} s")),
        ("recognizer", engine("recognizer")),
        ("  error", heard(_error)),
        ("  substituted, deleted, inserted", heard(_edits)),
        ("  failed", heard(_failed)),
        ("  seconds for a recording", heard(_number("seconds_per_clip"))),
        ("  real-time factor", heard(_number("real_time_factor", 3))),
        ("synthesizer", engine("synthesizer") if report["spoken"] else lambda _: ""),
        ("  answers", spoken(_answers)),
        (f"  error, by the {'judge' if report['judged'] else 'configured recognizer'}", spoken(_error)),
        ("  naturalness (MOS, 1 to 5)", spoken(_number("mos"))),
        ("  similarity to the asker", spoken(_number("similarity"))),
        ("    of strangers", spoken(_number("strangers"))),
        ("    of the same speaker", spoken(_number("same_speaker"))),
        ("  score (0 strangers, 1 same speaker)", spoken(_number("score"))),
        ("  real-time factor", spoken(_number("real_time_factor", 3))),
        ("  first audio, seconds", spoken(_first_audio)),
        ("  voice made before it, seconds", spoken(_number("voice_median_s", 3))),
    )


def _engine(info: Mapping[str, str]) -> str:
    return " ".join(filter(None, (f"{info['tier']}:" if info["tier"] else "", info["model"], info["device"])))


def _error(of: _Column) -> str:
    if of["error"] is None:
        return "not measured"
    text = f"{of['rate']} {100 * of['error']:.1f} %"
    if of["interval_95"]:
        low, high = of["interval_95"]
        text += f" ({100 * low:.1f} to {100 * high:.1f})"
    return text


def _edits(of: _Column) -> str:
    return f"{of['substituted']}, {of['deleted']}, {of['inserted']} of {of['reference']}" if of["reference"] else ""


def _failed(of: _Column) -> str:
    return str(of["failed"] or "")


def _number(name: str, digits: int = 2) -> Callable[[_Column], str]:
    return lambda of: "" if of[name] is None else f"{of[name]:.{digits}f}"


def _answers(of: _Column) -> str:
    voices = ", ".join(f"{count} {kind}" for kind, count in of["voices"].items() if count)
    spoken = f"{of['answers']} ({voices}), {of['seconds']:.0f} s" if voices else "0"
    return spoken + (f", {of['failed']} failed" if of["failed"] else "")


def _first_audio(of: _Column) -> str:
    if of["first_audio_median_s"] is None:
        return ""
    return f"{of['first_audio_median_s']:.3f} (at most {of['first_audio_max_s']:.3f})"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _notes(report: Mapping[str, Any]) -> list[str]:
    notes = [f"{name}: {of['not_recognized']}" for name, of in report["heard"].items() if of["not_recognized"]]
    notes += [f"{name} has no score: {of['no_score']}" for name, of in report["spoken"].items() if of["no_score"]]
    hardware, settings = report["hardware"], report["settings"]
    computer = ", ".join([hardware["cpu"], f"{settings['threads']} threads", *hardware["gpus"]])
    notes.append(f"on {computer}; wenet_weights {settings['wenet_weights']}, xtts_weights {settings['xtts_weights']}")
    if report["doubts"]:
        notes.append(f"no claim about real models and voices: {'; '.join(report['doubts'])}")
    return notes
