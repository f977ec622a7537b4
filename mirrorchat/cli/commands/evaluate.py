"""`mirrorchat evaluate`: how well the engines of the configuration hear, and speak in their askers' voices."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
              help="What is answered: sentences that never change, or the clip's own words.")  # fmt: skip
@click.option("--device", help="auto, cpu, cuda or cuda:N; as the other options up to --seed: instead of config.py's.")
@click.option("--threads", type=int, help="CPU threads.")
@click.option("--wenet-weights", type=click.Choice(WENET_WEIGHTS), help="WeNet's precision.")
@click.option("--xtts-weights", type=click.Choice(XTTS_WEIGHTS), help="XTTS's precision.")
@click.option("--recognizer", help=f"auto, wenet, embedded or wenet:NAME: {_FOR_BOTH}.")
@click.option("--synthesizer", help=f"auto, xtts or embedded: {_FOR_BOTH}.")
@click.option("--models-dir", type=click.Path(path_type=Path), help="The folder of the models.")
@click.option("--seed", type=int, help="What speech is drawn with.")
@click.option("--require-similarity", is_flag=True, help="Fail where speaker similarity cannot be measured.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Keep the answers here, as wav. Nothing else is ever written.")  # fmt: skip
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
    """Measure recognition and speech over the recordings of FOLDER, else over some made by eSpeak NG.

    FOLDER has one tsv (or name the tsv itself), whose first line names its columns: file, language, transcript and, if
    known, speaker. The exit status is 1 when something of it fails.
    """
    settings = settings_of(chatgpt_apis=[], **overrides)
    encoder, missing = _encoder(settings, require_similarity) if answers or require_similarity else (None, "")
    if save:
        _make_folder(save)
    from mirrorchat.cli.evaluation.report import report
    from mirrorchat.cli.evaluation.run import Plan, run
    from mirrorchat.cli.evaluation.table import table
    from mirrorchat.startup.loading import build_engines

    with _Progress() as progress:
        clips = _clips(place, settings, progress)
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
    """Return the speaker encoder, or None and why there is none."""
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
            raise EvaluationError(f"{folder} is not empty: answers are saved in a folder of their own")
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be written to: {error.strerror}") from None


def _clips(place: Path | None, settings: Settings, progress: "_Progress") -> "list[Clip]":
    from mirrorchat.cli.evaluation.clips import ClipLimits, read_clips
    from mirrorchat.cli.evaluation.speech import make_clips

    if place is None:
        progress.show("making recordings")
        return make_clips()
    progress.show("reading recordings")
    return read_clips(place, ClipLimits(settings.upload_limit_bytes, settings.question_limit_s))


class _Progress:
    """A line on a terminal's stderr that says what is being done; nothing anywhere else."""

    def __enter__(self) -> "_Progress":
        return self

    def show(self, text: str) -> None:
        """Show `text` in the place of what stood there."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        self.show("")


def _check(results: "Results") -> None:
    """Raise EvaluationError when something failed, which the report has counted."""
    from mirrorchat.cli.evaluation.recording import first_failure

    everything = [*results.heard, *results.answers, *(answer.heard for answer in results.answers)]
    if failures := sum(bool(first_failure([each])) for each in everything):
        raise EvaluationError(f"{failures} failed, the first because: {first_failure(everything)}")
