"""The training and test speech of the tiny WeNet models: words, sentences, voices, and the synthesis by eSpeak NG.

`training(language)` and `held_out(language)` return takes (the words and the voice of an utterance); `speak(takes)`
synthesizes them. The held-out takes have three kinds in equal parts:

    heard        a training sentence in a training voice, with a new rate, pitch and noise
    new_order    a new sentence, in a training voice
    new_voice    a new sentence, in a new eSpeak variant

Every word of a held-out sentence occurs in the training, but no held-out sentence does. eSpeak NG (1.52, the wheel
`espeakng-loader`) is not thread-safe, so it runs in a worker process: as a program, this file reads takes as JSON from
its standard input and writes a line of JSON and the 16-bit samples to its standard output.
"""

import ctypes
import functools
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soxr

Code = Literal["zh", "en"]
Kind = Literal["train", "heard", "new_order", "new_voice"]
Samples = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
HELD_OUT_PER_KIND = 16

# Sentences as sequences of slots: `{name}` is one of WORDS[name], everything else stands for itself. The spaces between
# Chinese words are not part of the text.
SLOTS: dict[Code, dict[str, str]] = {
    "en": {
        "time": "today tomorrow tonight now",
        "city": "london paris",
        "thing": "light lights music window door",
        "verb": "open close",
        "number": "one two three four five six seven eight nine ten",
        "unit": "minute minutes hour hours",
        "person": "mother father",
        "drink": "water tea coffee",
        "story": "story joke song book",
        "weather": "cold hot sunny raining",
        "daytime": "morning evening",
    },
    "zh": {
        "time": "今天 明天 晚上 早上 现在",
        "city": "北京 上海",
        "thing": "灯 音乐 窗户 门",
        "verb": "打开 关上",
        "number": "一 二 三 四 五 六 七 八 九 十",
        "unit": "分钟 小时",
        "person": "妈妈 爸爸",
        "drink": "水 茶 咖啡",
        "story": "故事 笑话 歌 书",
        "weather": "冷 热 下雨",
        "daytime": "早上 晚上",
    },
}
TEMPLATES: dict[Code, tuple[str, ...]] = {
    "en": (
        "what is the weather {time}",
        "what's the weather in {city}",
        "how is the weather in {city} {time}",
        "is it {weather} {time}",
        "will it be {weather} in {city}",
        "it's {weather} {time}",
        "please turn on the {thing}",
        "turn off the {thing} please",
        "{verb} the {thing}",
        "can you {verb} the {thing} {time}",
        "set a timer for {number} {unit}",
        "tell me a {story}",
        "can you read me a {story}",
        "i want to hear a {story}",
        "play the next {story} again",
        "call my {person} {time}",
        "where is my {person}",
        "do you like {drink}",
        "i want a {drink} please",
        "i like {drink}",
        "good {daytime} how are you",
        "what time is it {time}",
        "stop playing songs",
        "hello what is your name",
        "thank you very much",
        "make it louder please",
        "my name is not {city}",
    ),
    "zh": (
        "{time} 天气 怎么样",
        "{city} {time} 天气 好 吗",
        "{city} {weather} 吗",
        "{time} 会 很 {weather} 吗",
        "请 {verb} {thing}",
        "你 可以 {verb} {thing} 吗",
        "播放 {story}",
        "我 想 听 {story}",
        "请 给 我 讲 一个 {story}",
        "定时 {number} {unit}",
        "{time} 给 {person} 打 电话",
        "我 的 {person} 在 哪里",
        "你 喜欢 喝 {drink} 吗",
        "我 要 喝 {drink}",
        "{time} 几点",
        "{daytime} 好",
        "你好 你 叫 什么 名字",
        "谢谢 你",
        "{person} 去 学校",
        "苹果 多少 钱",
        "我 不 喜欢 吃 苹果",
        "告诉 我 {time} 的 天气",
    ),
}
# Word orders outside of the templates. The first half is for the new voices.
NEW_ORDERS: dict[Code, tuple[str, ...]] = {
    "en": (
        "is my mother in london tonight",
        "please read the book to my father",
        "do you want a song now",
        "the music is very good turn it louder",
        "how much time is it to paris",
        "will you call me in ten minutes",
        "hello mother where are you now",
        "open the window it's very hot",
        "stop the timer please",
        "my father is not in paris today",
        "tell my mother i like the song",
        "what's your next joke",
        "can i hear two songs now",
        "thank you i like it very much",
        "close the door it's cold tonight",
        "set the lights for the evening",
        "good morning is it raining in london",
        "i like my coffee very hot",
        "where is the water please",
        "will the morning be sunny",
        "the story is not for me",
        "play music for seven hours",
        "read me nine songs tomorrow",
        "what do you like father",
        "you are very good to me",
        "turn the music off now",
        "how cold is the water",
        "is your name london",
        "make me a tea please",
        "call me again in three hours",
        "are you in the window",
        "do not open the door tonight",
    ),
    "zh": (
        "爸爸 今天 在 北京 吗",
        "妈妈 喜欢 什么 音乐",
        "上海 现在 很 热",
        "请 告诉 爸爸 我 在 学校",
        "打开 窗户 今天 不 冷",
        "你 想 去 哪里 喝 咖啡",
        "茶 多少 钱",
        "你好 请 关上 门",
        "我 叫 你 爸爸 好 吗",
        "明天 早上 给 我 打 电话",
        "故事 讲 一个 小时",
        "晚上 听 音乐 很 好",
        "什么 书 很 好",
        "谢谢 妈妈 给 我 苹果",
        "八 小时 的 歌",
        "你 现在 会 讲 笑话 吗",
        "北京 的 天气 不 好",
        "在 上海 喝 茶",
        "我 的 名字 不 叫 苹果",
        "请 现在 播放 八 分钟 音乐",
        "爸爸 要 吃 什么",
        "今天 不 要 打开 灯",
        "学校 的 门 在 哪里",
        "你 的 书 多少 钱",
        "现在 下雨 吗 请 关上 窗户",
        "妈妈 明天 会 去 北京",
        "我 听 你 的 故事",
        "几点 去 学校",
        "水 很 热 不 要 喝",
        "你 喜欢 北京 的 早上 吗",
        "定时 播放 笑话",
        "咖啡 怎么样",
    ),
}
_NAMED = "Andy Annie Alicia Gene linda steph paul john edward max"
_VARIANTS = ("", *f"m1 m2 m3 m5 m7 f1 f2 f4 f5 klatt klatt2 klatt4 {_NAMED}".split())
UNSEEN_VARIANTS = ("m4", "f3")
BASES: dict[Code, tuple[str, ...]] = {"en": ("en-us", "en-gb-x-rp"), "zh": ("cmn",)}


@dataclass(frozen=True)
class Take:
    """One utterance: its words, eSpeak's voice, rate (words/min) and pitch (0-99), gain, SNR and pauses around it."""

    words: tuple[str, ...]
    language: Code
    kind: Kind
    voice: str
    rate: int
    pitch: int
    gain_db: float
    snr_db: float
    lead_s: float
    tail_s: float
    seed: int

    @property
    def text(self) -> str:
        """Return the text for eSpeak: English with spaces, Chinese without."""
        return (" " if self.language == "en" else "").join(self.words)


@functools.cache
def sentences(language: Code) -> tuple[tuple[str, ...], ...]:
    """Return every sentence of the templates, as words, in a fixed order."""
    found: dict[tuple[str, ...], None] = {}
    for template in TEMPLATES[language]:
        slots = [SLOTS[language][word[1:-1]].split() if word[0] == "{" else [word] for word in template.split()]
        found.update(dict.fromkeys(itertools.product(*slots)))
    unwanted = set(new_orders(language))
    return tuple(sentence for sentence in found if sentence not in unwanted)


def new_orders(language: Code) -> list[tuple[str, ...]]:
    """Return the held-out sentences, as words."""
    return [tuple(line.split()) for line in NEW_ORDERS[language]]


@functools.cache
def vocabulary(language: Code) -> tuple[str, ...]:
    """Return every word of the templates, sorted."""
    return tuple(sorted({word for sentence in sentences(language) for word in sentence}))


def training(language: Code, count: int, seed: int) -> list[Take]:
    """Return `count` training takes: a quarter are template sentences, most others random ones, and a few are silent.

    Random sentences prevent the network from memorizing the templates: it would guess short words from their
    neighbours, and reject new sentences.
    """
    rng = random.Random(f"{language} train {seed}")
    known, unwanted = sentences(language), set(new_orders(language))
    takes: list[Take] = []
    while len(takes) < count:
        draw = rng.random()
        said = rng.choice(known) if draw < 0.25 else _patchwork(rng, language, known)
        if said not in unwanted:
            takes.append(_take(rng, language, "train", () if draw > 0.98 else said, _VARIANTS))
    return takes


def _patchwork(rng: random.Random, language: Code, known: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return 1 to 7 words in random order: pairs from template sentences, any words, and function words.

    Function words are short and indistinct, so they occur more often than the others.
    """
    words = vocabulary(language)
    little = [word for template in TEMPLATES[language] for word in template.split() if word[0] != "{"]
    said: list[str] = []
    for _ in range(rng.randint(1, 5)):
        draw = rng.random()
        if draw < 0.3:
            sentence = rng.choice(known)
            start = rng.randrange(len(sentence))
            said.extend(sentence[start : start + 2])
        else:
            said.append(rng.choice(words if draw < 0.65 else little))
    return tuple(said[:7])


def held_out(language: Code, seed: int = 0) -> list[Take]:
    """Return the held-out takes, `HELD_OUT_PER_KIND` of each kind."""
    rng = random.Random(f"{language} held out {seed}")
    known, orders, count = sentences(language), new_orders(language), HELD_OUT_PER_KIND
    heard = [_take(rng, language, "heard", said, _VARIANTS) for said in rng.sample(known, count)]
    new_order = [_take(rng, language, "new_order", said, _VARIANTS) for said in orders[count:]]
    new_voice = [_take(rng, language, "new_voice", said, UNSEEN_VARIANTS) for said in orders[:count]]
    return heard + new_order + new_voice


def _take(rng: random.Random, language: Code, kind: Kind, words: tuple[str, ...], variants: Sequence[str]) -> Take:
    variant = rng.choice(variants)
    base = rng.choice(BASES[language])
    return Take(
        words=words,
        language=language,
        kind=kind,
        voice=f"{base}+{variant}" if variant else base,
        rate=rng.randint(120, 180),
        pitch=rng.randint(30, 70),
        gain_db=rng.uniform(-18.0, 0.0),
        snr_db=rng.uniform(15.0, 45.0),
        lead_s=rng.uniform(0.0, 0.4),
        tail_s=rng.uniform(0.0, 0.4),
        seed=rng.randrange(2**32),
    )


def speak(takes: Sequence[Take]) -> list[Samples]:
    """Return each take as 16 kHz mono samples in [-1, 1] with its noise, gain and pauses. It is deterministic."""
    request = json.dumps([asdict(take) | {"text": take.text} for take in takes])
    child = subprocess.run(
        [sys.executable, str(Path(__file__))], input=request.encode(), stdout=subprocess.PIPE, check=True
    )
    header, _, sound = child.stdout.partition(b"\n")
    told = json.loads(header)
    spoken = np.split(np.frombuffer(sound, np.int16), np.cumsum(told["lengths"])[:-1])
    return [_finish(take, pcm, told["rate"]) for take, pcm in zip(takes, spoken, strict=True)]


def _finish(take: Take, pcm: npt.NDArray[np.int16], rate: int) -> Samples:
    rng = np.random.default_rng(take.seed)
    speech = (
        soxr.resample(pcm.astype(np.float32) / 32768.0, rate, SAMPLE_RATE) if len(pcm) else np.zeros(8000, np.float32)
    )
    speech = np.pad(speech, (int(take.lead_s * SAMPLE_RATE), int(take.tail_s * SAMPLE_RATE)))
    level = float(np.sqrt(np.mean(speech**2))) or 0.05
    # Half white and half brown noise: like a fan and a street.
    white = rng.standard_normal(len(speech))
    brown = np.convolve(rng.standard_normal(len(speech) + 31), np.hanning(32) / 4.0, mode="valid")
    noise = (white + brown) * level * 10 ** (-take.snr_db / 20) / np.sqrt(2)
    if not take.words and take.seed % 4 == 0:  # the network must learn digital silence too
        noise[:] = 0.0
    finished: Samples = np.clip((speech + noise) * 10 ** (take.gain_db / 20), -1.0, 1.0).astype(np.float32)
    return finished


def _load_espeak() -> tuple[ctypes.CDLL, int]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    synchronous, never_exit = 2, 0x8000
    rate = library.espeak_Initialize(synchronous, 0, espeakng_loader.get_data_path().encode(), never_exit)
    if rate <= 0:
        raise RuntimeError("eSpeak NG did not start")
    return library, rate


def _synthesize(takes: Sequence[dict[str, str | int]]) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the sample rate as an array, and then eSpeak's samples of each take."""
    library, rate = _load_espeak()
    yield np.array([rate], np.int16)
    pieces: list[npt.NDArray[np.int16]] = []

    def collect(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: object) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback: Callable[..., int] = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )(collect)
    library.espeak_SetSynthCallback(callback)
    for take in takes:
        pieces.clear()
        if library.espeak_SetVoiceByName(str(take["voice"]).encode()) != 0:
            raise RuntimeError(f"eSpeak NG has no voice {take['voice']}")
        rate_parameter, pitch_parameter, utf8 = 1, 3, 1
        library.espeak_SetParameter(rate_parameter, take["rate"], 0)
        library.espeak_SetParameter(pitch_parameter, take["pitch"], 0)
        text = str(take["text"]).encode()
        if text and library.espeak_Synth(text, len(text) + 1, 0, 1, 0, utf8, None, None) != 0:
            raise RuntimeError(f"eSpeak NG could not speak {take['text']}")
        library.espeak_Synchronize()
        yield np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def main() -> None:
    """Speak the takes on standard input (the worker process of `speak`)."""
    takes = json.load(sys.stdin)
    rate, *spoken = _synthesize(takes)
    header = {"rate": int(rate[0]), "lengths": [len(pcm) for pcm in spoken]}
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")
    for pcm in spoken:
        sys.stdout.buffer.write(pcm.tobytes())


if __name__ == "__main__":
    main()
