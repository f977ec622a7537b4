"""The names of the voices that other speech servers come with. Programs send them unless somebody changes them.

None of these voices exists here. Most servers build the names by a rule, which a pattern recognizes; some names stand
in a list. First names of people are left out, since people enrol their own voices under them.
"""

import re

# OpenAI's own. Nobody can enrol a voice under these names.
OPENAI_VOICES = (
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar",
)  # fmt: skip
NAME_LIMIT_CHARS = 256

_NAMES = frozenset((
    *OPENAI_VOICES,
    # the defaults of Kokoro, Orpheus and Coqui
    "af", "tara", "claribel dervla", "ana florence",
    # Gemini
    "zephyr", "puck", "charon", "kore", "fenrir", "leda", "orus", "aoede", "callirrhoe", "autonoe", "enceladus",
    "iapetus", "umbriel", "algieba", "despina", "erinome", "algenib", "rasalgethi", "laomedeia", "achernar", "alnilam",
    "schedar", "gacrux", "pulcherrima", "achird", "zubenelgenubi", "vindemiatrix", "sadachbia", "sadaltager", "sulafat",
    # Kyutai, Qwen and CosyVoice
    "alba", "javert", "fantine", "cosette", "eponine", "azelma", "chelsie", "uncle_fu", "ono_anna", "sohee",
    "中文女", "中文男", "英文女", "英文男", "日语男", "粤语女", "韩语女",
))  # fmt: skip
_WEIGHT = r"\d{1,2}(?:\.\d{1,3})?"
_KOKORO = rf"[abefhijpz][fm]_[a-z0-9]{{1,24}}(?:\({_WEIGHT}\)|\*{_WEIGHT})?"
_ANY_CASE = "|".join((
    rf"{_KOKORO}(?:[+-]{_KOKORO}){{0,15}}",  # af_heart, bf_emma(2)+am_adam(1)
    r"(?:voice-)?(?:de|en|es|fr|it|ja|ko|pt|ru|zh)-[a-z]{2}-[\w-]{1,60}",  # voice-en-us-amy-low
    r"(?:[a-z]{2}[-_])?(?:fe)?male(?:[-_][\w-]{1,60})?",  # zh_female_wanwan, male-qn-qingse
    r"(?:[a-z]{2}[-_])?(?:speaker|spk)[-_]?\d{1,4}|p\d{3}|\d{1,6}",  # en_speaker_6, p225, 3
    r"(?:en|zh|es|fr|jp|kr)(?:-(?:us|br|au|india|default|newest))?",  # EN-Default
    r"aura-(?:2-)?[a-z]{2,20}-[a-z]{2}|[a-z]{2,20}-playai|long[a-z]{3,20}_v\d|expr-voice-\d-[fm]",
    r"[a-z]{2}-[a-z]{2,20}_(?:wo)?man(?:_[a-z]{1,10})?|(?:english|chinese)(?: \([a-z]{1,20}\))?_[a-z_]{1,40}",
    r"(?=[a-z]{0,19}\d)[a-z0-9]{20}|[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # random ids
    r"[^/]{1,80}\.(?:wav|mp3|flac|ogg|onnx|pt|pth|safetensors|json)",  # Emily.wav
    r"[^/]{0,80}/.{0,150}",  # FunAudioLLM/CosyVoice2-0.5B:alex; the name of a voice here has no /
))  # fmt: skip
_LOCALE_FIRST = r"[a-z]{2,3}[-_](?:[A-Z][a-z]{3}[-_])?[A-Z]{2}[-_][\w-]{1,60}"  # en_US-amy-medium, zh-CN-YunxiNeural
_PATTERN = re.compile(rf"(?i:{_ANY_CASE})|{_LOCALE_FIRST}", re.DOTALL)


def is_stock_voice(name: str) -> bool:
    """Return whether `name` is that of a voice which another speech server comes with."""
    if len(name) > NAME_LIMIT_CHARS:
        return False
    return name.casefold() in _NAMES or _PATTERN.fullmatch(name) is not None
