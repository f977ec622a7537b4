"""The names and tags of the two languages."""

import pytest

from mirrorchat.engines import Language

CHINESE = (
    "zh", "ZH", "zh-CN", "zh_cn", "zh-TW", "zh-SG", "zh-Hans", "zh-Hant-HK", "zho", "chi", "cmn", "cmn-Hans-CN",
    "zh-cmn-Hans-CN", "zh_CN.UTF-8", "zh_TW.UTF-8@radical", " zh ", "chinese", "Chinese", "Mandarin",
    "Chinese (Taiwan)", "Mandarin Chinese", "Traditional Chinese (Taiwan)", "Chinese (Simplified, China)",
    "中文", "汉语", "漢語", "普通话", "普通話", "國語", "华语",
    "简体中文", "繁體中文", "正體中文", "中文（简体）", "中文(台灣)", "ｚｈ－ＣＮ", "普通话（中国大陆）",
)  # fmt: skip
ENGLISH = (
    "en", "EN", "en-US", "EN_gb", "en-AU", "eng", "eng-US", "en-Latn-IN", "en_US.UTF-8", "en-GB-oxendict",
    "en-US-x-home", "english", " English ", "ENGLISH", "English (US)", "American English",
    "English (United States)", "英文", "英语（美国）", "英语", "英語",
)  # fmt: skip
NEITHER = (
    "", " ", "-", "e", "z", "enm", "zhx", "fr", "de-CN", "ja", "klingon", "chinglish", "auto", "en,zh", "en;q=0.9",
    "de-en", "fr zh", "yue", "yue-HK", "zh-yue", "zh-min-nan", "cantonese", "Chinese Cantonese", "Chinese (Cantonese)",
    "粤语", "中文（粵語）", "en\x00", "en-" + "x" * 64,
    "z" * 1_000_000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "language"), [(CHINESE, Language.CHINESE), (ENGLISH, Language.ENGLISH)], ids=["chinese", "english"]
)
def test_every_tag_and_name_means_its_language(names: tuple[str, ...], language: Language) -> None:
    assert {name: Language.parse(name) for name in names} == dict.fromkeys(names, language)


@pytest.mark.parametrize("name", NEITHER, ids=lambda name: name[:12])
def test_another_name_is_refused_with_examples_of_both(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose Mandarin Chinese \(zh, .*\) or English \(en, ") as refused:
        Language.parse(name)
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize("name", ["auto", "AUTO", " Auto "])
def test_auto_is_no_language_but_stands_for_one(name: str) -> None:
    assert Language.parse_or_auto(name) is None
    with pytest.raises(ValueError, match="unknown language"):
        Language.parse(name)
    assert Language.parse_or_auto("zh-TW") is Language.CHINESE
    with pytest.raises(ValueError, match="auto, which detects it"):
        Language.parse_or_auto("automatic")
