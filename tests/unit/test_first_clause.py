"""The first piece of an answer: a clause if one can be split off safely, else the whole sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorchat.engines import Language
from mirrorchat.text.sentences.speech_length import is_short, is_whole_clause
from mirrorchat.text.splitter import SENTENCE_LIMIT_CHARS, SentenceSplitter

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
LANGUAGES = st.sampled_from(list(Language))
_PARTS = [
    *("so ", "the answer ", "is ", "I think ", "e.g. ", "Dr. Lee ", ", ", "; ", ": ", " — ", "... ", "… ", ". ", "? "),
    *(
        "1,000 ",
        "3.14 ",
        "www.a.com/b,c ",
        "(one, two) ",
        ' "yes, sir" ',
        "1，000",
        "3：30",
        "“好，走吧。”",
        "（一，二）",
    ),
    *("我们", "今天去公园", "，", "、", "：", "——", "……", "。", "。。。", "\n"),
]
ANSWERS = st.lists(st.sampled_from(_PARTS), max_size=40).map("".join)


def split(text: str, language: Language = ENGLISH, *, clause_first: bool = True) -> list[str]:
    splitter = SentenceSplitter(language, clause_first=clause_first)
    return splitter.feed(text) + splitter.flush()


ENGLISH_CLAUSES = [
    ["Yes, the weather in Beijing is sunny today,", "with a high of 25 degrees.", "Bring a hat, a coat and water."],
    ["Sure! I can help you with that,", "but first tell me more."],
    ["I would not do that;", "it is far too dangerous."],
    ["Here are 3 things you need:", "time, money and patience."],
    ["The answer is quite simple —", "nobody knows what it means."],
    ["Paris – the capital of France –", "is beautiful in the spring."],
    ["It costs 1,000,000 dollars in total,", "which is a lot of money."],
    ["On Monday, March 5, 2025,", "we went to the market."],
    ["The train leaves at 3 p.m.,", "which is late for you."],
    ["See https://a.b/c,d;e:f?x=1 for the details,", "or ask me again later."],
    ["It is good (at least for me, as I see it),", "but I may be wrong."],
    ['He said "no, not now, please" to us all,', "and then he went home."],
    ['"I am going home now,"', "he said quietly to her."],
    ["“I am going home now,”", "he said quietly to her."],
    ["Note that, as always, bold text is fine,", "and so on it goes."],
    ["I was thinking about it…", "maybe we should go home."],
    ["I was thinking about it...", "maybe we should go home."],
    ["The old man's dog,", "a large and friendly one, barked."],
]
CHINESE_CLAUSES = [
    ["好的，我来帮你查一下，", "明天北京是晴天，最高二十五度。", "记得带帽子，别忘了。"],
    ["你好！我是小明，", "很高兴认识你，有什么可以帮你？"],
    ["你需要准备这些东西：", "时间，金钱和耐心。"],
    ["他非常认真地想了很久……", "然后才慢慢地开口说话。"],
    ["我们明天再说这件事——", "今天大家都已经很累了。"],
    ["会议在15：30开始，", "请大家准时参加，谢谢。"],
    ["这个数字是1，000，", "不是很大，你可以放心。"],
    ["他对我说：“你先走吧，我等一下。”", "然后他就走了，没有回头。"],
    ["《红楼梦，上》这本书很不错，", "你应该看一看。"],
    ["我觉得（其实，大家也是）不对，", "应该马上改一改。"],
    ["Python是一种编程语言,", "它很容易学习,也很强大。"],
]


@pytest.mark.parametrize("pieces", ENGLISH_CLAUSES)
def test_the_first_piece_of_an_english_answer_is_a_clause(pieces: list[str]) -> None:
    assert split(" ".join(pieces)) == pieces


@pytest.mark.parametrize("pieces", CHINESE_CLAUSES)
def test_the_first_piece_of_a_chinese_answer_is_a_clause(pieces: list[str]) -> None:
    assert split("".join(pieces), CHINESE) == pieces


@pytest.mark.parametrize(
    "sentence",
    [
        "Yes, that is right.",
        "The tall tower in Paris, France was built long ago.",
        "I think that you are right, yes.",
        "We bought some apples, pears, and bananas there.",
        "We bought apples and pears, etc. and went home.",
        "My favourite company is Apple, Inc. and nothing else.",
        "We were there on March 5, 2025 with all the others.",
        "The old price was about 1,000 or even 1,500 dollars.",
        "The winners are the numbers 1, 2, 3, 4 and 5 today.",
        "He said (as I remember it, at least on that day) nothing.",
        'He only said "I am very tired, so let us go home now" today.',
        "He only said 'I am very tired, so let us go home now' today.",
        "In the years 1990 – 2000 we lived in that town.",
        "The journey there takes 10 hours—12 hours by train.",
        "The ratio of these two is 16:9 or maybe 4:3 today.",
        "没问题，好的。",
        "太棒了，我们走吧。",
        "北京、上海、广州和深圳都是一线城市。",
        "他刚才说“我今天太累了，我们明天再去吧”就走了。",
        "《红楼梦，西游记，水浒传和三国演义》都很好看。",
        "这个数字大约是1，000，000左右的样子。",
        "这家幼儿园只收3岁—6岁的孩子们。",
    ],
)
def test_a_sentence_without_a_safe_clause_stays_whole(sentence: str) -> None:
    assert split(sentence) == [sentence]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The answer is quite simple—nobody knows it.", ["The answer is quite simple—", "nobody knows it."]),
        (
            "Here are the steps you can take:\n1. Walk home now.",
            ["Here are the steps you can take:", "1, Walk home now."],
        ),
        (
            "**Note that, as ever, all of** it works, and so on it goes.",
            ["Note that, as ever, all of it works,", "and so on it goes."],
        ),
        ("Look at [the docs, which are very long](https://a.b/c) now.", ["Look at the docs, which are very long now."]),
        ("You will find all of it there, see [it](https://a.b/c).", ["You will find all of it there, see it."]),
        ("| Name, first of all | Role, the other of them |", ["Name, first of all, Role, the other of them"]),
        ("The capital of France is Paris, 😀 <b>of course</b>.", ["The capital of France is Paris, of course."]),
    ],
)
def test_the_first_clause_in_markup(text: str, pieces: list[str]) -> None:
    assert split(text) == pieces


def test_only_the_first_piece_of_a_stream_is_a_clause_and_only_on_demand() -> None:
    text = "This is the first one, and here it goes on. This is the second one, and here it goes on."
    assert split(text) == [
        "This is the first one,",
        "and here it goes on.",
        "This is the second one, and here it goes on.",
    ]
    assert split(text, clause_first=False) == [
        "This is the first one, and here it goes on.",
        "This is the second one, and here it goes on.",
    ]


def test_a_flushed_splitter_begins_with_a_clause_again() -> None:
    splitter = SentenceSplitter(ENGLISH)
    text = "This is the first one, and here it goes on."
    assert splitter.feed(text) + splitter.flush() == splitter.feed(text) + splitter.flush() == split(text)


def test_the_first_clause_is_complete_as_soon_as_a_third_word_follows() -> None:
    splitter = SentenceSplitter(ENGLISH)
    assert splitter.feed("It rains in Paris today, so take ") == []
    assert splitter.feed("a") == ["It rains in Paris today,"]
    assert splitter.feed("n umbrella.") + splitter.flush() == ["so take an umbrella."]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("He paused for a long moment… Then he spoke.", ["He paused for a long moment…", "Then he spoke."]),
        ("He paused for a long moment... Then he spoke.", ["He paused for a long moment...", "Then he spoke."]),
        ("He paused for one moment . . . and then he spoke.", ["He paused for one moment. . . and then he spoke."]),
        ("Nobody knew the way…so they stayed.", ["Nobody knew the way…so they stayed."]),
        ("他想了想……然后才说话。大家都很安静。", ["他想了想……然后才说话。", "大家都很安静。"]),
        ("他想了想...然后才说话。大家都很安静。", ["他想了想...然后才说话。", "大家都很安静。"]),
        ("这件事情很难说。。。也许明天就知道了。", ["这件事情很难说。。。", "也许明天就知道了。"]),
        ("“真的吗……我不信！”她说。然后她走了。", ["“真的吗……我不信！”", "她说。然后她走了。"]),
        ("He wrote “Wait… Not yet. Go.” on the door. Then he left.",
         ["He wrote “Wait… Not yet. Go.” on the door.", "Then he left."]),
        ("(It was late. It rained.) Nobody saw us there.", ["(It was late. It rained.)", "Nobody saw us there."]),
        ("【注意……小心！】前方正在施工。请大家绕行。", ["【注意……小心！】前方正在施工。", "请大家绕行。"]),
        ("「你好。我走了。」他说完就离开了。", ["「你好。我走了。」", "他说完就离开了。"]),
    ],
)  # fmt: skip
def test_ellipses_quotes_and_brackets_are_never_split(text: str, pieces: list[str]) -> None:
    assert split(text, clause_first=False) == pieces


@settings(max_examples=300, deadline=None)
@given(text=ANSWERS, language=LANGUAGES, data=st.data())
def test_the_first_clause_does_not_depend_on_the_deltas(text: str, language: Language, data: st.DataObject) -> None:
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    splitter = SentenceSplitter(language)
    pieces = [
        piece for start, end in zip([0, *at], [*at, len(text)], strict=True) for piece in splitter.feed(text[start:end])
    ]
    by_character = SentenceSplitter(language)
    one_by_one = [piece for character in text for piece in by_character.feed(character)]
    assert pieces + splitter.flush() == one_by_one + by_character.flush() == split(text, language)


@settings(max_examples=300, deadline=None)
@given(text=ANSWERS, language=LANGUAGES)
def test_the_first_clause_loses_nothing_and_ends_well(text: str, language: Language) -> None:
    pieces, sentences = split(text, language), split(text, language, clause_first=False)
    speakable = [character for character in text if character.isalnum()]
    assert [character for piece in pieces for character in piece if character.isalnum()] == speakable
    assert all(len(piece) <= SENTENCE_LIMIT_CHARS[language] for piece in pieces)
    if pieces[:1] != sentences[:1]:
        assert is_whole_clause(pieces[0]) and not is_short(pieces[1])
        # An overlong sentence is split at its limit, maybe before the end of the clause.
        assert len(pieces[0]) < len(sentences[0]) or len(text) > SENTENCE_LIMIT_CHARS[language]
        assert all(pieces[0].count(left) == pieces[0].count(right) for left, right in ("()", "“”", "（）"))
        assert pieces[0].count('"') % 2 == 0


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.sampled_from(_PARTS), max_size=14), clause_first=st.booleans())
def test_numbers_addresses_and_ellipses_stay_whole(parts: list[str], clause_first: bool) -> None:
    text = "".join(parts)
    joined = "\n".join(split(text, clause_first=clause_first))
    for whole in ("1,000", "3.14", "1，000", "3：30", "www.a.com/b,c"):
        assert joined.count(whole) == text.count(whole)


def test_an_overlong_sentence_is_never_split_inside_a_chinese_number() -> None:
    splitter = SentenceSplitter(CHINESE, limit_chars=20)
    pieces = splitter.feed("会议一共来了很多人大约有1，000，000左右人") + splitter.flush()
    assert any("1，000，000" in piece for piece in pieces) and len(pieces) > 1
