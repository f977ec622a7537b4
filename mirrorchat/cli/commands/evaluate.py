"""`mirrorchat evaluate` measures recognition, and speech in the voices of recordings."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirrorchat.cli.client.terminal import Waiting
from mirrorchat.cli.commands.options import settings_of
from mirrorchat.errors import EvaluationError
from mirrorchat.settings import WENET_WEIGHTS, XTTS_WEIGHTS, Settings

if TYPE_CHECKING:
    from mirrorchat.cli.evaluation.clips import Clip
    from mirrorchat.cli.evaluation.run import Results
    from mirrorchat.cli.evaluation.speaker_encoder import SpeakerEncoder

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
@click.option("--recognizer", help=f"auto, wenet, embedded or wenet:NAME: {_FOR_BOTH}.")
@click.option("--synthesizer", help=f"auto, xtts or embedded: {_FOR_BOTH}.")
@click.option("--models-dir", type=click.Path(path_type=Path), help="The folder of the models.")
@click.option("--seed", type=int, help="The seed of the speech.")
@click.option("--require-similarity", is_flag=True, help="Fail if speaker similarity cannot be measured.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Save the answers here, as wav. Nothing else is written.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every clip and answer.")
def evaluate(
    place: Path | None,
    answers: int,
    say: str,
    require_similarity: bool,
    save: Path | None,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Measure recognition and speech with the recordings of FOLDER, by default with synthetic ones of eSpeak NG.

    FOLDER has one tsv (or is the tsv), whose first line names the columns: file, language, transcript and, if known,
    speaker. The exit status is 1 when a measurement fails.
    """
    settings = settings_of(chatgpt_apis=[], **overrides)
    encoder, missing = _encoder(settings, require_similarity) if answers or require_similarity else (None, "")
    if save:
        _make_folder(save)
    from mirrorchat.cli.evaluation.report import report
    from mirrorchat.cli.evaluation.run import Plan, run
    from mirrorchat.cli.evaluation.table import table
    from mirrorchat.startup.loading import build_engines

    with Waiting("reading recordings" if place else "making recordings") as progress:
        clips = _clips(place, settings)
        progress.show("loading the engines")
        with redirect_stdout(sys.stderr):  # some packages print while they load
            engines = build_engines(settings)
        try:
            plan = Plan(clips, answers, say == "transcript", encoder, missing, save, made=place is None)
            results = run(plan, engines, settings, progress.show)
            found = report(results, settings, engines)
        finally:
            engines.close()
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else table(found))
    _check(results)


def _encoder(settings: Settings, required: bool) -> "tuple[SpeakerEncoder | None, str]":
    """Return the speaker encoder, or None and the reason."""
    from mirrorchat.cli.evaluation.speaker_encoder import SpeakerEncoder, missing_packages

    missing = missing_packages()
    if missing and required:
        raise EvaluationError(f"speaker similarity cannot be measured: {missing}")
    if missing:
        return None, missing
    import torch

    torch.set_num_threads(settings.threads)
    return SpeakerEncoder(), ""


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

    everything = [*results.heard, *results.answers, *(answer.heard for answer in results.answers)]
    if failures := sum(bool(first_failure([each])) for each in everything):
        raise EvaluationError(f"{failures} failed, the first one with: {first_failure(everything)}")
