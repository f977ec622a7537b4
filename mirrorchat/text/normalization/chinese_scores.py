"""Mandarin text normalization: scores of games."""

import re

from mirrorchat.text.normalization.chinese_numbers import cardinal
from mirrorchat.text.normalization.chinese_words import COUNTED
from mirrorchat.text.normalization.patterns import Rule, after, before, behind, rule
from mirrorchat.text.sentences.speech_length import HAN


def _spoken_score(match: re.Match[str]) -> str:
    return f"{cardinal(int(match[1]))}比{cardinal(int(match[2]))}"


def _spoken_scores(match: re.Match[str]) -> str:
    """Return `25:21、23:25` as scores unless each can be a time of day."""
    numbers = [(int(first), int(second)) for first, second in re.findall(r"(\d+)[:-](\d+)", match[0])]
    if "-" in match[0]:
        is_scores = any(first > second for first, second in numbers)
    else:
        is_scores = any(first > 24 or second > 59 for first, second in numbers)
    if not is_scores and not _SCORED.search(before(match, 6)):
        return match[0]
    return re.sub(r"(\d{1,3})[:-](\d{1,3})", _spoken_score, match[0])


def _spoken_descending(match: re.Match[str]) -> str:
    """Return `阿根廷2-1澳大利亚` as a score: no range descends."""
    is_score = int(match[1]) > int(match[2]) and not COUNTED.match(after(match, 3))
    return _spoken_score(match) if is_score else match[0]


_SCORED = re.compile("比分(?:为|是|分别为|：)?$")
_WON = (
    "获胜|战胜|击败|大胜|险胜|完胜|惨败|完败|不敌|落后|领先|战平|打平|横扫|逆转|取胜|淘汰|平(?![方米均])|战(?![略士争])|胜(?![任过])"
    "|负(?![责债])|赢|输(?![入出送])"
)
_SCORE_CUES = "比分|比分是|比分为|比分：|比分:|比分定格在|比分改写为|以"

SCORE_RULES: tuple[Rule, ...] = (
    rule(r"(?<![A-Za-z0-9.,:/+×÷*√-])(\d{1,2})[-–](?=\1(?![0-9A-Za-z.:/%°×÷+*√-]| ?=))(\d{1,2})", _spoken_score),
    rule(rf"(?<![0-9.,:-])(\d{{1,3}})[-:~–](\d{{1,3}})(?=(?:的比分)?(?:{_WON}))", _spoken_score),
    rule(r"(?<![\d.,:-])(?:\d{1,3}[:-]\d{1,3}[、，,] ?){1,8}\d{1,3}[:-]\d{1,3}(?![\d:.%A-Za-z-])", _spoken_scores),
    rule(rf"(?<=[{HAN}])(?<![图表式第编号])(\d{{1,3}})-(\d{{1,3}})(?=[{HAN}，。；！（]|$)", _spoken_descending),
    rule(rf"{behind(_SCORE_CUES)}(\d{{1,3}})[-:~–](\d{{1,3}})(?=[，。！；、的]|$)",
         _spoken_score),
)  # fmt: skip
