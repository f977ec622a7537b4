"""The speech of an evaluation: synthetic recordings by eSpeak NG, and the texts of the answers."""

from collections.abc import Mapping, Sequence
from functools import partial

from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.synthetic_speech import synthesize
from mirrorchat.embedded.workers.process import WorkerFailed
from mirrorchat.engines import Language
from mirrorchat.errors import EvaluationError

# Each variant is a speaker. They differ in sex and pitch, and pocketsphinx recognizes them best.
SPEAKERS: Mapping[Language, tuple[str, ...]] = {
    Language.ENGLISH: ("en-us+f2", "en-us+m6", "en-us+f5"),
    Language.CHINESE: ("cmn+f2", "cmn+m6", "cmn+f5"),
}
SENTENCES: Mapping[Language, tuple[str, ...]] = {
    Language.ENGLISH: (
        "What is the best way to learn a language?",
        "How long does it take to walk around the lake?",
        "Please tell me something about the history of this city.",
    ),
    Language.CHINESE: ("学习语言最好的方法是什么？", "绕着湖走一圈需要多长时间？", "请给我讲讲这座城市的历史。"),
}
ANSWERS: Mapping[Language, tuple[str, ...]] = {
    Language.ENGLISH: (
        "The morning train leaves at a quarter past eight, and you will be there before lunch.",
        "Put the bread into a warm oven, and wait until the top is brown.",
        "Most birds fly south in autumn, because they find little to eat in winter.",
        "You can see the mountains from the bridge when the weather is clear.",
    ),
    Language.CHINESE: (
        "早上的火车八点一刻出发，中午以前就能到。",
        "把面包放进烤箱，等表面变成金黄色就可以了。",
        "秋天的时候很多鸟飞到南方，因为冬天食物很少。",
        "天气晴朗的时候，从桥上可以看到远处的山。",
    ),
}


def make_clips() -> list[Clip]:
    """Return a clip of each of SENTENCES in each voice of SPEAKERS. Raises EvaluationError when eSpeak NG fails."""
    items = [
        (language, text, voice, f"{voice}-{number}")
        for language, voices in SPEAKERS.items()
        for voice in voices
        for number, text in enumerate(SENTENCES[language], 1)
    ]
    try:
        speech = synthesize(*((text, voice) for _, text, voice, _ in items))
    except WorkerFailed as error:
        raise EvaluationError(f"eSpeak NG made no recordings: {error}") from None
    return [
        Clip(name, language, text, voice, audio.duration_s, partial(Audio, audio.samples, audio.sample_rate))
        for (language, text, voice, name), audio in zip(items, speech, strict=True)
    ]


def answer_text(clip: Clip, index: int, *, transcript: bool) -> str:
    """Return the answer to `clip`, the one with number `index`: its own transcript, or one of ANSWERS."""
    return clip.transcript if transcript else ANSWERS[clip.language][index % len(ANSWERS[clip.language])]


def choose_answered(clips: Sequence[Clip], most: int) -> list[Clip]:
    """Return up to `most` clips of each language: the first clip of each speaker, then the second ones, and so on."""
    chosen: list[Clip] = []
    for language in Language:
        speakers: dict[object, list[Clip]] = {}
        for clip in clips:
            if clip.language is language:
                speakers.setdefault(clip.speaker or (clip.name,), []).append(clip)
        rounds = max(map(len, speakers.values()), default=0)
        in_turn = [mine[turn] for turn in range(rounds) for mine in speakers.values() if turn < len(mine)]
        chosen += in_turn[:most]
    return chosen
