"""A sentence is cut where a reader would pause, within the limit, and never inside a word or a number."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrorchat.text.clauses import cut_clause

LIMIT = 8
_WORDS = [
    word
    for line in (
        "学习 语言 一门 最好 办法 每天 坚持 练习 北京 今天 最高 气温 二十五 空气 质量 良好 建议 至少",
        "三十 分钟 中文 广播 我们 收入 增长 超过 预期 看书 然后 回家",
    )
    for word in line.split()
]
_PARTS = [*_WORDS, "的", "了", "，", "。", "35.5%", "2023年", "A4", "“", "”", " ", "day,"]


def words(text: str) -> list[str]:
    """Divide Chinese text by a short list of words; whatever is not in it stands alone."""
    return re.findall("|".join([*_WORDS, "."]), text)


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("每天练习一点，从第一周起就大声说。", "每天练习一点，"),  # a mark is the best place
        ("我们每天在家里看书写字。", "我们每天"),  # then the start of a phrase
        ("学习一门语言最好的办法是练习。", "学习一门语言"),
        ("建议至少听三十分钟中文广播。", "建议至少听"),  # a number and its measure word
        ("今年收入增长了35.5%，超过预期。", "今年收入增长了"),
        ("今年超过了一亿三千万元以上的。", "今年超过了"),
        ("他说“我们今天回家，然后看书”。", "他说“我们今天回家，"),
        ("看“二十五”页书，然后回家看书。", "看“二十五”页书，"),
    ],
)
def test_a_chinese_clause(text: str, clause: str) -> None:
    assert cut_clause(text, LIMIT, words) == (clause, text[len(clause) :])


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("Practise a little every day, and speak aloud.", "Practise a little every day,"),
        ("Nobody in this town has seen it because it hides.", "Nobody in this town has seen it"),
        ("It costs more than they said, 3 000 000 dollars.", "It costs more than they said,"),
    ],
)
def test_an_english_clause(text: str, clause: str) -> None:
    assert cut_clause(text, 30, words) == (clause, text[len(clause) :].strip())


@pytest.mark.parametrize("text", ["每天练习。", "一二三四五六七八九十百千万亿", "Supercalifragilistic", "", "，。！"])
def test_what_has_no_place_stays_whole(text: str) -> None:
    assert cut_clause(text, LIMIT, words) == (text, "")


def test_a_word_longer_than_the_limit_stays_whole() -> None:
    assert cut_clause("supercalifragilistic 每天练习。", 4, words) == ("supercalifragilistic", "每天练习。")


@given(st.lists(st.sampled_from(_PARTS), max_size=30), st.integers(1, 40))
def test_nothing_is_lost_and_no_number_or_particle_is_cut_off(parts: list[str], limit: int) -> None:
    text = "".join(parts).strip()
    clause, rest = cut_clause(text, limit, words)
    assert "".join((clause + rest).split()) == "".join(text.split())
    assert not (rest and rest[0] in "，。的了”")
    assert not re.search(r"\d\.?$", clause) or not rest or not rest[0].isdigit()


def test_hostile_text_costs_little() -> None:
    started = time.perf_counter()
    cut_clause("一“" * 5_000, LIMIT, words)
    cut_clause("35. " * 5_000, LIMIT, words)
    assert time.perf_counter() - started < 2.0
