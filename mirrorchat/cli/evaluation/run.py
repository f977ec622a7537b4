"""A whole evaluation, from a plan to its results."""

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
    """What to evaluate: `clips`, and up to `answers` answers in each language.

    With `transcripts` answers say what the clips say. Without an `encoder`, `no_similarity` says why. Answers are saved
    in `save`. `made`: the clips are synthetic.
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
    """What was measured: `heard` by clip, `answers` by clip `answered`; `unheard`: why a language has no recognizer."""

    plan: Plan
    heard: Sequence[Heard | None]
    answered: Sequence[Clip]
    answers: Sequence[Answer]
    unheard: Mapping[Language, str]


def run(plan: Plan, engines: Engines, settings: Settings, show: Callable[[str], None]) -> Results:
    """Hear each clip, then answer some; `show` is told how far it is.

    Raises EvaluationError when a recording has gone, or an answer cannot be saved; failures of engines are results.
    """
    evaluation = Evaluation(engines, settings.seed, settings.turn_deadline_s)
    show("warming up")
    for language in Language:
        if clip := next((clip for clip in plan.clips if clip.language is language), None):
            evaluation.warm_up(clip, answer_text(clip, 0, transcript=plan.transcripts), speak=plan.answers > 0)
    heard = []
    for index, clip in enumerate(plan.clips, 1):
        show(f"hearing {index} of {len(plan.clips)}")
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
    """Return what saves an answer in `folder`, under a name that no clip's name can lead out of it."""
    stem = re.sub(r"[^\w.+-]+", "_", Path(clip.name).stem)[:_NAME_LIMIT]

    def keep(audio: Audio) -> None:
        if folder is not None:
            try:
                (folder / f"{number:04d}-{clip.language.code}-{stem}.wav").write_bytes(encode_wav(audio))
            except OSError as error:
                raise EvaluationError(f"an answer cannot be saved in {folder}: {error.strerror}") from None

    return keep
