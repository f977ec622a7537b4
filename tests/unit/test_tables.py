"""Tables are spoken row by row with the names of their columns, also when they arrive piece by piece."""

import pytest
from support.spoken import spoken, spoken_sentences

from mirrorchat.engines import Language
from mirrorchat.text.sentences.tables import Tables
from mirrorchat.text.splitter import SentenceSplitter

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE

ENGLISH_TABLES = [
    (
        "| Name | Age |\n|---|---:|\n| Ann | 30 |\n| Bob | 25 |\n\nThat is all there is.",
        ["Name: Ann, Age: thirty.", "Name: Bob, Age: twenty-five.", "That is all there is."],
    ),
    (
        "Here it is:\n\n| **Fruit** | Price | In stock |\n|:---|:---:|---:|\n| Apple | $1.50 | ✅ |\n| Pear | - | ❌ |",
        [
            "Here it is:",
            "Fruit: Apple, Price: one dollar and fifty cents, In stock: yes.",
            "Fruit: Pear, In stock: no.",
        ],
    ),
    (
        "| Property | Value |\n|---|---|\n| Weight | 5 kg |\n| Height | 2 m |",
        ["Weight: five kilograms.", "Height: two meters."],
    ),
    ("| | Plan A | Plan B |\n|-|-|-|\n| Price | $5 | $6 |", ["Price, Plan A: five dollars, Plan B: six dollars."]),
    (
        "Name | Age\n--- | ---\nAnn | 30\nBob | 25\n\nDone with it now.",
        ["Name, Age, Name: Ann, Age: thirty.", "Name: Bob, Age: twenty-five.", "Done with it now."],
    ),
    ("> | City | Country |\n> |---|---|\n> | Paris | France |", ["City: Paris, Country: France."]),
    ("| Sign | Reading |\n|---|---|\n| + | either \\| both |", ["Sign: plus, Reading: either, both."]),
    (
        "| Team | Won | Lost |\n|---|---|---|\n| Group A | | |\n| Reds | 3 | 1 | late |",
        ["Group A. Team: Reds, Won: three, Lost: one, late."],
    ),
    ("| Formula | Sense |\n|---|---|\n| $x^2$ | $|x|$ |", ["Formula: x squared, Sense: the absolute value of x."]),
    ("| One | Two |\n|---|---|\n\nNo rows were in it.", ["One, Two. No rows were in it."]),
    ("| only a line |\nwith more text here.", ["only a line", "with more text here."]),
    ("Use a | b or c || d here.", ["Use a, b or c, d here."]),
]
CHINESE_TABLES = [
    (
        "| 参数 | 手机15 | 手机16 |\n|---|---|---|\n| 重量 | 171g | 170g |\n| 充电 | 20W | 30W |",
        [
            "参数：重量，手机十五，一百七十一克，",
            "手机十六，一百七十克。",
            "参数：充电，手机十五，二十瓦，手机十六，三十瓦。",
        ],
    ),
    (
        "| 姓名 | 年龄 |\n|---|---|\n| 小明 | 30 |\n| 小红 | 25 |\n\n以上就是全部内容。",
        ["姓名：小明，年龄：三十。", "姓名：小红，年龄：二十五。", "以上就是全部内容。"],
    ),
    (
        "对比如下：\n\n| 型号 | 价格 | 有货 |\n|:---|:---:|---:|\n| A1 | 2999元 | ✅ |\n| B2 | 1999元 | ❌ |",
        ["对比如下：型号：A 一，价格：两千九百九十九元，有货：是。", "型号：B 二，价格：一千九百九十九元，有货：否。"],
    ),
    ("| 项目 | 内容 |\n|---|---|\n| 时间 | 3月5日 |\n| 地点 | 北京市 |", ["时间：三月五日。", "地点：北京市。"]),
    ("| 指标 | 2023 | 2024 |\n|---|---|---|\n| 收入 | 30 | 40 |", ["指标：收入，二零二三年：三十，二零二四年：四十。"]),
    ("| 公式 | 结果 |\n|---|---|\n| $x^2$ | $|x|$ |", ["公式：x 的平方，结果：x 的绝对值。"]),
    ("| | 方案甲 | 方案乙 |\n|-|-|-|\n| 价格 | 5元 | 6元 |", ["价格，方案甲：五元，方案乙：六元。"]),
    ("> | 城市 | 国家 |\n> |---|---|\n> | 巴黎 | 法国 |", ["城市：巴黎，国家：法国。"]),
    (
        "城市 | 国家\n--- | ---\n巴黎 | 法国\n\n表格到此为止。",
        ["城市，国家，城市：巴黎，国家：法国。", "表格到此为止。"],
    ),
    ("| 语言 | 优点 |\n|---|---|\n| Python | 容易学习 |", ["语言：Python，优点：容易学习。"]),
]


@pytest.mark.parametrize(("answer", "sentences"), ENGLISH_TABLES)
def test_english(answer: str, sentences: list[str]) -> None:
    assert spoken_sentences(answer, ENGLISH) == sentences


@pytest.mark.parametrize(("answer", "sentences"), CHINESE_TABLES)
def test_chinese(answer: str, sentences: list[str]) -> None:
    assert spoken_sentences(answer, CHINESE) == sentences


@pytest.mark.parametrize("answer", [answer for answer, _ in ENGLISH_TABLES + CHINESE_TABLES])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_table_may_come_in_pieces(answer: str, size: int) -> None:
    tables = Tables()
    in_pieces = "".join(tables.push(answer[at : at + size]) for at in range(0, len(answer), size)) + tables.flush()
    assert in_pieces == tables.push(answer) + tables.flush()


def test_a_row_is_spoken_as_soon_as_its_line_ends() -> None:
    splitter = SentenceSplitter(ENGLISH)
    assert splitter.feed("| Name | Age |\n|---|---|\n| Ann Lee | 30 |") == []
    assert splitter.feed("\n") == ["Name: Ann Lee, Age: 30."]


def test_text_passes_without_delay() -> None:
    tables = Tables()
    assert tables.push("No row, a | b\n  - item") == "No row, a | b\n  - item"
    assert tables.push("\n--- no ruler") == "\n--- no ruler"
    assert tables.push("\n| held") == "\n"
    assert tables.flush() == "| held\n"


def test_a_line_without_end_is_not_held_for_ever() -> None:
    tables = Tables()
    assert len(tables.push("|" + "x" * 5000)) == 5001


def test_a_cell_holds_code_with_a_pipe() -> None:
    assert spoken("| Code | Sense |\n|---|---|\n| `a|b` | one of them |", ENGLISH) == "Code: a, b, Sense: one of them."
