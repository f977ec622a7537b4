"""`mirrorchat evaluate` measures recognition, and speech in the voices of recordings."""

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirrorchat.cli.client.terminal import Waiting
from mirrorchat.cli.commands.options import settings_of
from mirrorchat.errors import EvaluationError
from mirrorchat.settings import WENET_WEIGHTS, XTTS_WEIGHTS, Settings

if TYPE_CHECKING:
    from mirrorchat.cli.evaluation.clips import Clip
    from mirrorchat.cli.evaluation.judge import Judge
    from mirrorchat.cli.evaluation.recording import Answer, Heard
    from mirrorchat.cli.evaluation.run import Results
    from mirrorchat.engines import Engines

    Tell = Callable[[Clip, Heard | Answer | None], None]

_FOR_BOTH = "for both languages"


@click.command()
@click.argument("place", metavar="[FOLDER]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--answers", type=click.IntRange(0, 10_000), default=6, show_default=True,
              help="How many answers to speak in each language.")  # fmt: skip
@click.option("--say", type=click.Choice(["fixed", "transcript"]), default="fixed", show_default=True,
              help="The answers: fixed sentences, or the transcripts of the clips.")  # fmt: skip
@click.option("--device", help="auto, cpu, cuda or cuda:N. This and the options up to --seed override config.py.")
@click.option("--threads", type=int, help="CPU threads.")
@click.option("--wenet-weights", type=click.Choice(WENET_WEIGHTS), help="WeNet's precision.")
@click.option("--xtts-weights", type=click.Choice(XTTS_WEIGHTS), help="XTTS's precision.")
@click.option("--recognizer", help=f"auto, wenet, small, embedded or wenet:NAME: {_FOR_BOTH}.")
@click.option("--synthesizer", help=f"auto, xtts, small or embedded: {_FOR_BOTH}.")
@click.option("--models-dir", type=click.Path(path_type=Path), help="The folder of the models.")
@click.option("--seed", type=int, help="The seed of the speech.")
@click.option("--judge", "judged", is_flag=True,
              help="Judge the answers: what is understood, how natural they sound, how near the voice is.")  # fmt: skip
@click.option("--save", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Save the answers here, as wav. Nothing else is written.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every clip and answer.")
def evaluate(
    place: Path | None, answers: int, say: str, judged: bool, save: Path | None, as_json: bool, **overrides: Any
) -> None:
    """Measure recognition and speech with the recordings of FOLDER, by default with synthetic ones of eSpeak NG.

    FOLDER has one tsv (or is the tsv), whose first line names the columns: file, language, transcript and, if known,
    speaker. The exit status is 1 when a measurement fails.
    """
    settings = settings_of(chatgpt_apis=[], **overrides)
    if save:
        _make_folder(save)
    from mirrorchat.cli.evaluation.report import report
    from mirrorchat.cli.evaluation.run import Plan, run
    from mirrorchat.cli.evaluation.table import table

    with ExitStack() as stack:
        progress = stack.enter_context(Waiting("reading recordings" if place else "making recordings"))
        clips = _clips(place, settings)
        progress.show("loading the engines")
        judge = stack.enter_context(closing(_judge(settings, clips))) if judged else None
        engines = stack.enter_context(closing(_engines(settings)))
        progress.show("warming up")
        plan = Plan(clips, answers, say == "transcript", judge, save, made=place is None)
        results = run(plan, engines, settings, _silent(progress) if as_json else _rows(progress))
        found = report(results, plan, settings, engines)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else f"\n{table(found)}")
    _check(results)


def _judge(settings: Settings, clips: "Sequence[Clip]") -> "Judge":
    from mirrorchat.cli.evaluation.judge import Judge

    return Judge(settings, clips)


def _engines(settings: Settings) -> "Engines":
    from mirrorchat.startup.loading import build_engines

    with redirect_stdout(sys.stderr):  # some packages print while they load
        return build_engines(settings)


def _rows(progress: Waiting) -> "Tell":
    """Return a function that prints a line for each result."""
    from mirrorchat.cli.evaluation.table import row

    def tell(clip: "Clip", result: "Heard | Answer | None") -> None:
        progress.stop()
        click.echo(row(clip, result))

    return tell


def _silent(progress: Waiting) -> "Tell":
    """Return a function that counts the results in the progress line."""
    done = itertools.count(1)
    return lambda clip, result: progress.show(f"measuring, {next(done)} done")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise EvaluationError(f"{folder} is not empty: answers need an empty folder")
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be written to: {error.strerror}") from None


def _clips(place: Path | None, settings: Settings) -> "list[Clip]":
    from mirrorchat.cli.evaluation.clips import ClipLimits, read_clips
    from mirrorchat.cli.evaluation.speech import make_clips

    if place is None:
        return make_clips()
    return read_clips(place, ClipLimits(settings.upload_limit_bytes, settings.question_limit_s))


def _check(results: "Results") -> None:
    """Raise EvaluationError when a measurement failed, after the report has counted it."""
    from mirrorchat.cli.evaluation.recording import first_failure

    heard, answers = [each for _, each in results.heard], [each for _, each in results.answers]
    everything = [*heard, *answers, *(answer.heard for answer in answers)]
    if failures := sum(bool(first_failure([each])) for each in everything):
        raise EvaluationError(f"{failures} failed, the first one with: {first_failure(everything)}")
