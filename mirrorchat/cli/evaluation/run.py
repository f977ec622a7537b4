"""Runs an evaluation from its plan to its results."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.recording import Answer, Evaluation, Heard
from mirrorchat.cli.evaluation.speaker_encoder import SpeakerEncoder
from mirrorchat.cli.evaluation.speaker_similarity import SpeakerSimilarity
from mirrorchat.cli.evaluation.speech import answer_text, choose_answered
from mirrorchat.engines import Engines, Language
from mirrorchat.errors import EvaluationError
from mirrorchat.settings import Settings

_NAME_LIMIT = 80


@dataclass(frozen=True)
class Plan:
    """The recognition of `clips`, and the speech of up to `answers` answers in each language.

    With `transcripts` the answers are the transcripts of the clips. Without an `encoder`, `no_similarity` has the
    reason. Answers are saved in the folder `save`. `made` means that the clips are synthetic.
    """

    clips: Sequence[Clip]
    answers: int
    transcripts: bool
    encoder: SpeakerEncoder | None
    no_similarity: str
    save: Path | None
    made: bool


@dataclass(frozen=True)
class Results:
    """The measurements: `heard` for each clip, `answers` for each clip in `answered`.

    `unheard` has the reason why a language has no recognizer.
    """

    plan: Plan
    heard: Sequence[Heard | None]
    answered: Sequence[Clip]
    answers: Sequence[Answer]
    unheard: Mapping[Language, str]


def run(plan: Plan, engines: Engines, settings: Settings, show: Callable[[str], None]) -> Results:
    """Recognize each clip, and answer some. `show` is called with the progress.

    Raises EvaluationError when a recording has disappeared or an answer cannot be saved. Failures of engines are
    results.
    """
    evaluation = Evaluation(engines, settings.seed, settings.turn_deadline_s)
    show("warming up")
    for language in Language:
        if clip := next((clip for clip in plan.clips if clip.language is language), None):
            evaluation.warm_up(clip, answer_text(clip, 0, transcript=plan.transcripts), speak=plan.answers > 0)
    heard = []
    for index, clip in enumerate(plan.clips, 1):
        show(f"recognizing {index} of {len(plan.clips)}")
        heard.append(evaluation.hear(clip))
    answered = choose_answered(plan.clips, plan.answers)
    similarity = SpeakerSimilarity(plan.encoder, plan.clips) if plan.encoder else None
    answers = []
    for index, clip in enumerate(answered):
        show(f"answering {index + 1} of {len(answered)}")
        text = answer_text(clip, index, transcript=plan.transcripts)
        answers.append(evaluation.answer(clip, text, similarity, _keeper(plan.save, index + 1, clip)))
    return Results(plan, heard, answered, answers, evaluation.unheard)


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
