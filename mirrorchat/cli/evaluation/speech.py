"""What an evaluation says: recordings made by eSpeak NG where nobody gives any, and the answers that are spoken."""

from collections.abc import Mapping, Sequence

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.embedded.workers.espeak_child import HEADER
from mirrorchat.embedded.workers.process import ChildFailed, WorkerProcesses
from mirrorchat.engines import Cancel, Language
from mirrorchat.errors import EvaluationError

_LIMIT_S = 20.0  # a sentence takes 0.01 s; this is a hang

# Variants that differ in sex and pitch, those that pocketsphinx hears best; one of them is one speaker.
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
    Language.CHINESE: (
        "学习语言最好的方法是什么？",
        "绕着湖走一圈需要多长时间？",
        "请给我讲讲这座城市的历史。",
    ),
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
    """Return each of SENTENCES in each voice of SPEAKERS. Raises EvaluationError when eSpeak NG fails."""
    children = WorkerProcesses("mirrorchat.embedded.workers.espeak_child")
    clips = []
    try:
        for language, voices in SPEAKERS.items():
            for voice in voices:
                for number, text in enumerate(SENTENCES[language], 1):
                    clips.append(_clip(f"{voice}-{number}", voice, language, text, _say(children, voice, text)))
    except ChildFailed as error:
        raise EvaluationError(f"eSpeak NG made no recordings: {error}") from None
    finally:
        children.close()
    return clips


def _clip(name: str, voice: str, language: Language, text: str, audio: Audio) -> Clip:
    return Clip(name, language, text, voice, audio.duration_s, lambda: audio)


def _say(children: WorkerProcesses, voice: str, text: str) -> Audio:
    answer = children.request(f"{voice}\0{text}".encode(), limit_s=_LIMIT_S, deadline=None, cancel=Cancel())
    rate_hz, length = HEADER.unpack_from(answer)
    pcm = np.frombuffer(answer[HEADER.size + length :], dtype="<i2")
    return Audio(pcm.astype(np.float32) / 32768.0, rate_hz)


def answer_text(clip: Clip, index: int, *, transcript: bool) -> str:
    """Return what is answered to `clip`, number `index` of those answered: its own words, or one of ANSWERS."""
    return clip.transcript if transcript else ANSWERS[clip.language][index % len(ANSWERS[clip.language])]


def choose_answered(clips: Sequence[Clip], most: int) -> list[Clip]:
    """Return up to `most` clips of each language to answer: a clip of each speaker in turn, then their second ones."""
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
