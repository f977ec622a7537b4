"""Runs an evaluation from its plan to its results."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.judge import Judge
from mirrorchat.cli.evaluation.recording import Answer, Evaluation, Heard
from mirrorchat.cli.evaluation.speech import answer_text, choose_answered
from mirrorchat.engines import Engines, Language
from mirrorchat.errors import EvaluationError
from mirrorchat.settings import Settings

_NAME_LIMIT = 80


@dataclass(frozen=True)
class Plan:
    """The recognition of `clips`, and the speech of up to `answers` answers in each language.

    With `transcripts` the answers are the transcripts of the clips. Answers are saved in the folder `save`. `made`
    means that the clips are synthetic.
    """

    clips: Sequence[Clip]
    answers: int
    transcripts: bool
    judge: Judge | None
    save: Path | None
    made: bool


@dataclass(frozen=True)
class Results:
    """The measurements: what each clip was `heard` as (None without a recognizer), and the `answers` to some clips."""

    heard: Sequence[tuple[Clip, Heard | None]]
    answers: Sequence[tuple[Clip, Answer]]


def run(
    plan: Plan, engines: Engines, settings: Settings, tell: Callable[[Clip, Heard | Answer | None], None]
) -> Results:
    """Recognize each clip, and answer some. `tell` is called with each result as soon as it is there.

    Raises EvaluationError when a recording has disappeared or an answer cannot be saved. Failures of engines are
    results.
    """
    evaluation = Evaluation(engines, settings.seed, settings.turn_deadline_s, plan.judge)
    for language in Language:
        if clip := next((clip for clip in plan.clips if clip.language is language), None):
            evaluation.warm_up(clip, answer_text(clip, 0, transcript=plan.transcripts), speak=plan.answers > 0)
    heard = []
    for clip in plan.clips:
        heard.append((clip, evaluation.hear(clip)))
        tell(*heard[-1])
    answers = []
    for index, clip in enumerate(choose_answered(plan.clips, plan.answers)):
        text = answer_text(clip, index, transcript=plan.transcripts)
        answers.append((clip, evaluation.answer(clip, text, _keeper(plan.save, index + 1, clip))))
        tell(*answers[-1])
    return Results(heard, answers)


def _keeper(folder: Path | None, number: int, clip: Clip) -> Callable[[Audio], None]:
    """Return a function that saves an answer in `folder`. No clip's name can lead out of the folder."""
    stem = re.sub(r"[^\w.+-]+", "_", Path(clip.name).stem)[:_NAME_LIMIT]

    def keep(audio: Audio) -> None:
        if folder is not None:
            try:
                (folder / f"{number:04d}-{clip.language.code}-{stem}.wav").write_bytes(encode_wav(audio))
            except OSError as error:
                raise EvaluationError(f"an answer cannot be saved in {folder}: {error.strerror}") from None

    return keep
