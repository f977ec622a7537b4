"""The text of Whisper's tokens: bytes become characters and words with their times."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorchat.engines import Language
from mirrorchat.small.whisper_text import (
    HeardToken,
    chinese_marks,
    spoken_tokens,
    starts_again,
    tidy,
    timed_words,
    token_bytes,
    with_chinese_marks,
    without_loop,
    written_language,
)


def heard(*texts: bytes) -> list[HeardToken]:
    return [HeardToken(text, float(at), 0.5) for at, text in enumerate(texts)]


def test_every_byte_has_its_character() -> None:
    visible = "".join(map(chr, [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]))
    assert token_bytes(list(visible)) == [bytes([ord(character)]) for character in visible]
    assert token_bytes(["Ġthe", "Ċ", "ä½ł"]) == [b" the", b"\n", "你".encode()]


def test_parts_of_a_character_are_one_token() -> None:
    data = "嗯".encode()
    tokens = spoken_tokens(heard(b" a", data[:1], data[1:2], data[2:], b"!"), 9.0)
    assert [(token.text, token.start_s, token.end_s) for token in tokens] == [
        (" a", 0.0, 1.0),
        ("嗯", 1.0, 4.0),
        ("!", 4.0, 9.0),
    ]


def test_bytes_that_are_no_text_are_marked() -> None:
    assert [token.text for token in spoken_tokens(heard(b"\xff", b"a\xe4"), 2.0)] == ["\ufffd", "a\ufffd"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((" What", " joy", ",", " it", "'s", "."), ["What", "joy,", "it's."]),
        (("我有", "的", "。"), ["我", "有", "的。"]),
        (("用", " Py", "thon", "写", "吧"), ["用", "Python", "写", "吧"]),
        (("...",), []),
        ((" 3", ".", "5", "%"), ["3.5%"]),
    ],
)
def test_words(texts: tuple[str, ...], words: list[str]) -> None:
    tokens = spoken_tokens(heard(*(text.encode() for text in texts)), 10.0)
    assert [word.text for word in timed_words(tokens)] == words


def test_the_characters_of_a_token_share_its_time() -> None:
    (first, second) = timed_words(spoken_tokens([HeardToken("你好".encode(), 1.0, 0.5)], 3.0))
    assert (first.start_s, first.end_s, second.start_s, second.end_s) == (1.0, 2.0, 2.0, 3.0)


def test_spaces_between_chinese_characters_are_pauses() -> None:
    assert tidy(" 广州市 房地产 的 API") == "广州市房地产的 API"


@pytest.mark.parametrize(
    ("heard_text", "written"),
    [
        (" 今天天气怎么样?", "今天天气怎么样？"),
        ("你好, 世界.", "你好，世界。"),
        ("请问:几点了; 真的?!", "请问：几点了；真的？！"),
        ("我用Python, 你呢?", "我用Python，你呢？"),
        ("时间:3:30,温度12.5度.", "时间：3:30，温度12.5度。"),
        ("一共1,000元", "一共1,000元"),
        ("打开文件.txt", "打开文件.txt"),
        ("U.S.政府说...", "U.S.政府说..."),
        ("等等...", "等等..."),
        ("Yes, it's 3:30. Really?", "Yes, it's 3:30. Really?"),
        ("好 ，对", "好，对"),
    ],
)
def test_marks_beside_chinese_characters_are_full_width(heard_text: str, written: str) -> None:
    assert tidy(chinese_marks(heard_text)) == written


def test_the_marks_of_tokens_go_by_their_neighbours() -> None:
    tokens = spoken_tokens(
        heard(*(text.encode() for text in ("你", "好", ",", " I", ",", " 3", ".", "5", "度", "."))), 9.0
    )
    assert [token.text for token in with_chinese_marks(tokens)] == [
        "你", "好", "，", " I", ",", " 3", ".", "5", "度", "。"
    ]  # fmt: skip
    assert [word.text for word in timed_words(with_chinese_marks(tokens))] == ["你", "好，", "I,", "3.5", "度。"]


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_a_loop_at_the_end_is_kept_once(start: list[int], repeated: list[int]) -> None:
    cut = without_loop(start + repeated * 4)
    assert len(cut) < len(start + repeated * 4)
    assert (start + repeated * 4)[: len(cut)] == cut


def test_three_times_is_no_loop() -> None:
    assert without_loop([7, 1, 2, 1, 2, 1, 2]) == [7, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "明天下午去公园看花明天下午去公园",
        "帮我放一首 安静的老歌帮我放一首。",
        "今天的风很大，今天的风很大",
        " Please stop the music. Please stop the mu",
    ],
)
def test_a_text_that_starts_again_is_recognized(text: str) -> None:
    assert starts_again(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "好",
        "好好好",
        "你好你好",
        "明天下午去公园看花，明天",
        "the museum is the oldest of the city and the",
        "one two one three",
    ],
)
def test_a_short_repetition_is_how_people_speak(text: str) -> None:
    assert not starts_again(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Yes, please", "en"),
        ("好的", "zh"),
        ("用 Python 写 machine learning 的 API", "zh"),
        ("12345", "zh"),
        ("", "zh"),
    ],
)
def test_chinese_without_a_chinese_character_is_english(text: str, code: str) -> None:
    assert written_language(text, Language.CHINESE).code == code
    assert written_language(text, Language.ENGLISH) is Language.ENGLISH
