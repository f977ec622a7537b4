"""The splitter: sentences, pieces of limited length, and markup."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorchat.engines import Language
from mirrorchat.text.sentences.markup import strip_markup
from mirrorchat.text.splitter import SENTENCE_LIMIT_CHARS, SentenceSplitter, split_text

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
LANGUAGES = st.sampled_from(list(Language))
PROSE = "abcZ 1 29.,!?;:'’“”()…。！？；，、：你好世界我们“”（）\n"


def split(text: str, language: Language = ENGLISH, limit_chars: int | None = None) -> list[str]:
    splitter = SentenceSplitter(language, limit_chars=limit_chars)
    return splitter.feed(text) + splitter.flush()


def bare(text: str) -> str:
    return "".join(text.split())


def spoken_characters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


ENGLISH_SENTENCES = [
    ["Pi is about 3.14 exactly.", "We use it every day."],
    ["We use it, e.g. in School.", "They do not like it."],
    ["He left, i.e. Bob did it.", "Nobody else was there."],
    ["Dr. Smith knows Mrs. Jones well.", "They met years ago."],
    ["The U.S. Senate met this morning.", "It was very short."],
    ["We met at 3 p.m. Monday in town.", "It rained all day."],
    ["See https://example.com/a.b?c=1 for more.", "It helps a lot."],
    ["Write to bob.smith@example.com today please.", "He will answer you."],
    ['He said "Go now. Run away."', "Then there was silence."],
    ["He left (it was late. Very late.) and slept.", "Nobody heard him go."],
    ["Well... maybe it is so.", "Nobody can really tell."],
    ["Are you really sure?!", "I am not so sure."],
    ["What a wonderful day!", "Let us go outside."],
    ["J. K. Rowling wrote it.", "Everybody knows these books."],
    ["It runs Llama-3.1-8B.", "It has a USB-C.", "At night it is 12 °C.", "In there it is 20 C.", "So it stays warm."],
    ["Sartre was called J.-P. Sartre by some.", "Others called him names."],
    ["The U.K. and the E.U. agreed.", "It took many years."],
    ["Take No. 5 of them.", "The rest can wait."],
    ["It was only I.", "Then came the others."],
    ["Version 1.2.3 is out today.", "Please try it soon."],
    ["We bought apples, pears, etc. and went home.", "It was cheap."],
    ["They came in 1999.", "They left ten years later."],
    ["He asked “Why? Tell me.” and waited.", "No answer ever came."],
    ["Apple Inc. Makes good phones.", "So do the others."],
    ["It is 5 ft. long and heavy.", "Please help me lift it."],
    ["The room is 5'10\" tall.", "That is not much."],
    ["He shouted “Stop right there!”", "Everybody stood still."],
]
CHINESE_SENTENCES = [
    ["今天天气真好。", "我们去公园吧！"],
    ["你叫什么名字？", "我叫王小明。"],
    ["他站起来说：“走吧。快点。”", "然后他离开了。"],
    ["圆周率大约是3.14左右。", "这个数很有用。"],
    ["他想了想……然后才说话。", "大家都很安静。"],
    ["这是真的吗？！", "我不敢相信啊。"],
    ["春天来到了；", "花儿都开放了。"],
    ["这本书（很有名。真的。）卖完了。", "明天再来买吧。"],
    ["请看www.example.com网站。", "那里有答案的。"],
    ["你好吗我的朋友?", "我很好谢谢你!"],
    ["他用了v1.2.3版本。", "没有任何问题。"],
    ["《红楼梦。上》这本书不错。", "你应该看一看。"],
    ["Python 是一种语言。", "它很容易学会。"],
    ["【注意。小心。】前方施工。", "请大家绕行吧。"],
]


@pytest.mark.parametrize("sentences", ENGLISH_SENTENCES)
def test_english_sentences(sentences: list[str]) -> None:
    assert split(" ".join(sentences)) == sentences


@pytest.mark.parametrize("sentences", CHINESE_SENTENCES)
def test_chinese_sentences(sentences: list[str]) -> None:
    assert split("".join(sentences), CHINESE) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Sure! I can help you.", ["Sure! I can help you."]),
        ("No. Yes. Maybe it is so.", ["No. Yes. Maybe it is so."]),
        ("That is all. Bye!", ["That is all.", "Bye!"]),
        ("Yes", ["Yes"]),
        ("好的。我马上就去办。", ["好的。我马上就去办。"]),
        ("没问题！", ["没问题！"]),
        ("First line here\nsecond line here", ["First line here", "second line here"]),
        ("Note\nthis is important\n", ["Note, this is important"]),
        ("苹果\n香蕉和橘子", ["苹果，香蕉和橘子"]),
        ("1. Apples are red.\n2. Pears are green.", ["1, Apples are red.", "2, Pears are green."]),
        ("Options: 1. Walk home now. 2. Take the bus.", ["Options: 1. Walk home now.", "2, Take the bus."]),
        ("1. 苹果非常好吃\n2. 香蕉也很好吃", ["1，苹果非常好吃", "2，香蕉也很好吃"]),
        ("", []),
        ("  \n \n", []),
        ("... 😀 --- !", []),
    ],
)
def test_short_sentences_and_lines(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences


def test_a_sentence_is_complete_as_soon_as_the_next_one_begins() -> None:
    splitter = SentenceSplitter(ENGLISH)
    assert splitter.feed("It costs 3.") == []
    assert splitter.feed("5 dollars. ") == []
    assert splitter.feed("T") == ["It costs 3.5 dollars."]
    assert splitter.feed("hat is not much.\n") == ["That is not much."]
    assert splitter.flush() == []


def test_a_flushed_splitter_begins_again() -> None:
    splitter = SentenceSplitter(ENGLISH)
    assert splitter.feed("```\nhalf a code block (") + splitter.flush() == []
    assert splitter.feed("A new answer begins. It goes on well.") == ["A new answer begins."]
    assert splitter.flush() == ["It goes on well."]


@pytest.mark.parametrize("opener", ['"', "(", "“", "[", "`", "（", "{"])
def test_an_unclosed_mark_delays_the_text_only_up_to_the_limit(opener: str) -> None:
    splitter = SentenceSplitter(ENGLISH, limit_chars=100)
    given = splitter.feed(f"He said {opener}this is one sentence. " + "And here is another one. " * 8)
    assert given and all(len(sentence) <= 100 for sentence in given)
    assert given[-1].endswith("another one.")


def test_an_overlong_sentence_is_split_at_a_clause_then_at_a_word() -> None:
    text = "We walked along the river for hours, and nobody said a single word to any of the others there"
    assert split(text, limit_chars=60) == [
        "We walked along the river for hours,",
        "and nobody said a single word to any of the others there",
    ]
    assert split("one two three four five six seven", limit_chars=15) == ["one two three", "four five six", "seven"]
    assert split("我们今天去了公园，然后又去了商店买东西", CHINESE, 12) == [
        "我们今天去了公园，",
        "然后又去了商店买东西",
    ]


def test_long_sentences_never_break_a_number() -> None:
    text = "The answer to it is 1,234,567.89 or so, " * 20
    assert all(piece.count("1,234,567.89") == piece.count("1,") for piece in split(text, limit_chars=47))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("**bold** and *italic* and ***both***", "bold and italic and both"),
        ("__bold__ and _italic_ but snake_case", "bold and italic but snake_case"),
        ("~~gone~~ and `code()`", "gone and code()"),
        ("see [the docs](https://a.b/c_d?e=1) now", "see the docs now"),
        ("![a cat](cat.png) sits", "a cat sits"),
        ("## A heading ##", "A heading"),
        ("> quoted", "quoted"),
        ("- item", "item"),
        ("* item", "item"),
        ("- [x] done", "done"),
        ("3. third", "3, third"),
        ("3. 第三", "3，第三"),
        ("---", ""),
        ("| a | b |\n|---|:-:|\n| c | d |", "a, b, c, d"),
        ("before\n```python\nx = 1\n```\nafter", "before, after"),
        ("before\n```\nnever closed", "before"),
        ("a<br>b and <b>c</b>", "a b and c"),
        ("2 * 3 and 2*3 and 2**3", "2 * 3 and 2*3 and 2^3"),
        ("x < 5 and y > 3", "x < 5 and y > 3"),
        ("Great 😀! Thanks 👍🏽 👨‍👩‍👧 🇨🇳 ❤️", "Great! Thanks"),
        ("这是**重要**的*事*", "这是重要的事"),
        ("A title\nand a line.\nEnd", "A title, and a line. End"),
        ("fact[^1] known", "fact known"),
        (r"a \* b", "a * b"),
    ],
)
def test_markup_is_removed(text: str, words: str) -> None:
    assert strip_markup(text) == words


def test_markup_in_a_stream() -> None:
    text = (
        "# Title\n\nHere is **bold text.** See [the docs](https://x.y/z?a.b) for `more. Now`.\n\n"
        "```python\nprint('hi. There.')\n```\n\nThat is all 😀! Good bye my friend"
    )
    assert split(text) == [
        "Title, Here is bold text.",
        "See the docs for more. Now.",
        "That is all!",
        "Good bye my friend",
    ]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(max_size=300) | st.text(PROSE + '*_`#-|[]~\\"$&<{}^=', max_size=300),
    language=LANGUAGES,
    data=st.data(),
)
def test_the_sentences_do_not_depend_on_the_deltas(text: str, language: Language, data: st.DataObject) -> None:
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    splitter = SentenceSplitter(language, limit_chars=40)
    sentences: list[str] = []
    for start, end in zip([0, *at], [*at, len(text)], strict=True):
        sentences += splitter.feed(text[start:end])
    assert sentences + splitter.flush() == split(text, language, 40)


@settings(max_examples=150, deadline=None)
@given(text=st.text(PROSE, max_size=300), language=LANGUAGES, limit_chars=st.integers(1, 60))
def test_every_speakable_character_survives_the_splitter(text: str, language: Language, limit_chars: int) -> None:
    sentences = split(text, language, limit_chars)
    assert spoken_characters("".join(sentences)) == spoken_characters(text)
    assert all(len(sentence) <= limit_chars for sentence in sentences)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=300) | st.text(PROSE, max_size=300), language=LANGUAGES, limit_chars=st.integers(1, 80))
def test_split_text_keeps_every_character_in_pieces_within_the_limit(
    text: str, language: Language, limit_chars: int
) -> None:
    pieces = split_text(text, language, limit_chars)
    assert bare("".join(pieces)) == bare(text)
    assert all(0 < len(piece) <= limit_chars for piece in pieces)


@pytest.mark.parametrize(
    ("text", "limit_chars", "pieces"),
    [
        ("Hello there. Yes. It is 3.14 and such.", 20, ["Hello there. Yes.", "It is 3.14 and such."]),
        ("abcdefghijklmnop", 10, ["abcdefghij", "klmnop"]),
        ("今天天气很好，我们去公园玩吧。好的！我来。", 12, ["今天天气很好，", "我们去公园玩吧。", "好的！我来。"]),
        ("", 10, []),
        ("At three p.m. The bus left. Nobody saw it go.", 30, ["At three p.m. The bus left.", "Nobody saw it go."]),
    ],
)
def test_split_text(text: str, limit_chars: int, pieces: list[str]) -> None:
    assert split_text(text, ENGLISH, limit_chars) == pieces


def test_split_text_refuses_a_limit_below_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        split_text("a", ENGLISH, 0)


def test_default_limits_leave_room_below_those_of_xtts() -> None:
    assert SENTENCE_LIMIT_CHARS[ENGLISH] < 250 and SENTENCE_LIMIT_CHARS[CHINESE] < 82
