"""Cases for the fuzz tests. The seed and a case's name decide it, so that what failed can be tried again.

pytest -k fuzz --fuzz-seed 99 --fuzz-rounds 10
"""

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support.spoken_chinese_cases import CHINESE_CASES
from support.spoken_english_cases import ENGLISH_CASES

# What stands where another value was expected; the texts are short, since some of them are spoken.
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, 2**63, 10**40, "",
    " ", "\0", "\ud800", "a\nb", "é", "你好", "‮abc", "x" * 2000,
    "true", "nan", "1e999", "-0", "../../etc/passwd",
    "default", "http://127.0.0.1/x.png", [], {}, [[]], [None], [{}],
    {"": ""}, {"type": "text"}, ["text", "audio"], {"voice": {"id": []}}, [1, "a", None],
)  # fmt: skip
FRAGMENTS = (
    "<b>", "</think>", "<think>", "&amp;", "&#x1F600;",
    "&#999999999999;", "```", "`", "**", "__", "~~", "# ", "- ", "1. ",
    "| a | b |\n", "|---|---|\n", "[a](http://b.c)", "![",
    "](", "$x^2$", "$$", r"\frac{", r"\sqrt{2}", "{", "}", "(", ")",
    "《", "》", "“", "”", "\"", "'", "…", "——", "-", ".", ",",
    "。", "，", "、", "：", "!", "?", "\n", "\n\n", "\t", " ", "\0",
    "\x01", "[[", "]]", "\u200b", "\u200d", "\ufeff", "\u0301",
    "👩‍👩‍👧", "🇩🇪", "é", "ß", "я", "あ", "한", "ا", "𝟗", "①", "Ⅷ",
    "½", "²", "％", "0", "1", "12", "1,234", "3.14", "1/2",
    "10:30", "2025-11-30", "192.168.0.1", "+49 30 123", "1e9", "§ 5",
    "€5", "$1.50", "5%", "20°C", "km/h", "kWh", "Dr.", "e.g.",
    "a.b@c.de", "v1.2.3", "A-1", "C++", "#1", "No. 7", "３", "第三",
    "两", "百", "万", "亿", "点", "年", "月", "日", "号", "一", "零", "the", "cat", "天气", "很", "好",
)  # fmt: skip
WRITTEN = tuple(written for written, _ in ENGLISH_CASES + CHINESE_CASES)


@dataclass(frozen=True)
class Fuzz:
    """The seed of a run of the tests, and how many times as many cases as usual it has."""

    seed: int
    rounds: int

    def cases(self, name: str, count: int) -> Iterator[tuple[str, random.Random]]:
        """Yield the name of each case and what chooses all in it."""
        for number in range(count * self.rounds):
            case = f"seed {self.seed}, {name}, case {number}"
            yield case, random.Random(case)


def text(choose: random.Random, limit_chars: int) -> str:
    """Return a text of fragments of both languages; now and then one fragment again and again."""
    pool = choose.choice((FRAGMENTS, WRITTEN, FRAGMENTS + WRITTEN))
    few = choose.sample(pool, choose.choice((1, 2, 3, 20)))
    parts, length = [], 0
    while length < limit_chars:
        parts.append(choose.choice(few))
        length += len(parts[-1])
    return choose.choice(("", " ")).join(parts)[:limit_chars]


def pieces(whole: str, choose: random.Random) -> Iterator[str]:
    """Cut a text as streams do, anywhere."""
    longest, at = choose.choice((1, 5, 100, 5000)), 0
    while at < len(whole):
        length = choose.randint(1, longest)
        yield whole[at : at + length]
        at += length


def odd(body: dict[str, Any], choose: random.Random) -> bytes:
    """Return `body` as JSON, in which a few values are odd, missing, or stand where others did."""
    changed: dict[str, Any] = json.loads(json.dumps(body))
    for _ in range(choose.randint(1, 3)):
        holders = list(_holders(changed))
        holder = choose.choice(holders)
        if isinstance(holder, list):
            holder.append(odd_value(choose))
        elif choose.random() < 0.15 and holder:
            del holder[choose.choice(list(holder))]
        else:
            holder[choose.choice([*holder, "stream", "language", "model"])] = odd_value(choose)
    return json.dumps(changed).encode()


def odd_value(choose: random.Random) -> Any:
    return copy.deepcopy(choose.choice(ODD_VALUES))  # it may be changed, too


def _holders(value: Any) -> Iterator[Any]:
    """Yield every object and list in a value."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)
