"""Markdown and HTML of chat answers: their words are spoken, their marks are not."""

import pytest
from support.spoken import spoken

from mirrorchat.engines import Language

ENGLISH_MARKUP = [
    ("Well done (^_^), see you.", "Well done, see you."),
    ("I have no idea ¯\\_(ツ)_/¯ today.", "I have no idea today."),
    ("It is (±5) or (+).", "It is (plus or minus five) or (plus)."),
    ("Use the <div> tag, or `<span>` and &lt;b&gt;.", "Use the div tag, or span and b."),
    ("&lt;b&gt;bold&lt;/b&gt; text is here", "bold text is here"),
    ("x<sup>2</sup> and H<sub>2</sub>O, the 5<sup>th</sup> one<sup>1</sup>.", "x squared and H two O, the fifth one."),
    ("<p>Hello there.</p><p>How are you today?</p>", "Hello there. How are you today?"),
    ("Paris is big.[1] It is old [2]. So it is [3][4].", "Paris is big. It is old. So it is."),
    ("It was found【12†source】 today.", "It was found today."),
    ("See [the docs][1] and [more][].", "See the docs and more."),
    ("[![build](https://a.b/c.svg)](https://a.b) passes", "build passes"),
    ("See [wiki](https://en.wikipedia.org/wiki/A_(B)) now.", "See wiki now."),
    ("==marked== text, x^2^ and H~2~O", "marked text, x squared and H two O"),
    ("1\\. Not a list \\! and \\_this\\_", "one. Not a list! and this"),
    ("- [ ] buy milk today", "buy milk today"),
    ("- [x] sell eggs today", "sell eggs today"),
    ("1. First thing here", "one, First thing here"),
    ("   - nested thing here", "nested thing here"),
    ("   - another thing here", "another thing here"),
    ("2. Second thing here", "two, Second thing here"),
    ("> [!NOTE]", "Note"),
    ("> Read this first please.", "Read this first please."),
    ("> quoted words are here", "quoted words are here"),
    (">> twice quoted words", "twice quoted words"),
    ("Call `arr[1]` or `foo_bar()` and `**kwargs`.", "Call arr one or foo bar() and kwargs."),
    ("*italic* _under_ __init__ ***both*** ~~gone~~", "italic under init both gone"),
    ("Text<!-- hidden --> goes on.", "Text goes on."),
    ("Mail <me@example.com> or <https://example.com>.", "Mail me at example dot com or example dot com."),
    ("Great :smile: work at 10:30:00 now.", "Great work at ten thirty now."),
    ("a = [1, 2, 3] and x[0]", "a equals one, two, three and x zero"),
    ("![A cat on a mat](cat.png) sits there.", "A cat on a mat sits there."),
    ("### 1. Heading here", "one, Heading here"),
    ("├── src", "src"),
    ("└── main.py is the file", "main dot P Y is the file"),
    ("if x < 5 and y > 3 then", "if x less than five and y greater than three then"),
    ("Fact[^1] is known.", "Fact is known."),
    ("[^1]: The note says so.", "The note says so."),
    ("<details><summary>More about it</summary>Hidden text here.</details>", "More about it Hidden text here."),
    ("**Note:** this is *very* important.", "Note: this is very important."),
    (":contentReference[oaicite:0]{index=0} It is so.", "It is so."),
    ("- [ ] buy milk today\n- [x] sell eggs today", "buy milk today sell eggs today"),
    (
        "1. First thing here\n   - nested thing here\n2. Second thing here",
        "one, First thing here nested thing here two, Second thing here",
    ),
    ("> [!NOTE]\n> Read this first please.", "Note, Read this first please."),
    ("Title\n=====\nText follows here now.", "Title, Text follows here now."),
    ('See [the docs][1] now.\n\n[1]: https://example.com "Docs"', "See the docs now."),
    ("* * *\nAfter the rule we go on.", "After the rule we go on."),
    ("Einstein¹ said so.² It is true.³", "Einstein said so. It is true."),
    ("20 meters² and x² and (a+b)²", "twenty square meters and x squared and (a plus b) squared"),
    ("→ Next step is here", "Next step is here"),
    ("Term\n: Definition of the term", "Term, Definition of the term"),
    ("```inline```", "inline"),
    ("log<sub>2</sub>8 = 3 and a<sub>n</sub>", "log base two of eight equals three and a sub n"),
    ("10<sup>-3</sup> and E=mc<sup>2</sup>", "ten to the power of minus three and E equals m c squared"),
    ("According to [3], it is so (see [4]).", "According to three, it is so (see four)."),
    ("text[citation:1] more [[1]](http://a.b) here", "text more here"),
    ("<kbd>Ctrl</kbd>+<kbd>C</kbd>", "Ctrl plus C"),
    ("**[bold link](http://a.b)** now", "bold link now"),
    ("<table><tr><td>Ann</td><td>30</td></tr></table>", "Ann, thirty"),
]
CHINESE_MARKUP = [
    ("太好了(≧▽≦)，加油(๑•̀ㅂ•́)！", "太好了，加油！"),
    ("没办法¯\\_(ツ)_/¯，(^_^)", "没办法，"),
    ("尾号138****5678的手机", "尾号幺三八，星号，五六七八的手机"),
    ("x的取值区间为[1,3]。", "x 的取值区间为 一,三。"),
    ("用`x**2`计算。", "用 x 的平方计算。"),
    ("好的^_^，(ಥ_ಥ)再见", "好的，再见"),
    ("$1≈¥7.2，€1≈$1.08", "一美元约等于七点二元，一欧元约等于一点零八美元"),
    ("中国¹很大。²面积5米²。", "中国很大。面积五平方米。"),
    ("这是__重要__的_事_，**加粗**和*斜体*。", "这是重要的事，加粗和斜体。"),
    ("中国很大[1]。历史悠久【3†来源】。", "中国很大。历史悠久。"),
    ("使用`<div>`标签和`print()`函数。", "使用 div 标签和 print()函数。"),
    ("1. **第一步**：准备材料", "一，第一步：准备材料"),
    ("2. **第二步**：开始制作", "二，第二步：开始制作"),
    ("- [ ] 买牛奶和面包", "买牛奶和面包"),
    ("- [x] 卖鸡蛋和蔬菜", "卖鸡蛋和蔬菜"),
    ("> 引用的一句话", "引用的一句话"),
    ("==高亮==的文字，x<sup>2</sup>和H<sub>2</sub>O", "高亮的文字，x 的平方和 H 二 O"),
    ("看[文档](https://a.b/c)和[这里][1]。", "看文档和这里。"),
    ("### 三、标题", "三、标题"),
    ("脚注[^1]在此。", "脚注在此。"),
    ("***“重点”***在这里。", "“重点”在这里。"),
    ("~~删除~~的内容", "删除的内容"),
    ("![一只猫](cat.png)在这里。", "一只猫在这里。"),
    ("<b>粗体</b>和<br>换行", "粗体和 换行"),
    ("1. **第一步**：准备材料\n2. **第二步**：开始制作", "一，第一步：准备材料二，第二步：开始制作"),
    ("- [ ] 买牛奶和面包\n- [x] 卖鸡蛋和蔬菜", "买牛奶和面包卖鸡蛋和蔬菜"),
    ("***\n分割线之后的文字。", "分割线之后的文字。"),
    ("### 三、标题\n正文在下面。", "三、标题，正文在下面。"),
]


@pytest.mark.parametrize(("answer", "words"), ENGLISH_MARKUP)
def test_english(answer: str, words: str) -> None:
    assert spoken(answer, Language.ENGLISH) == words


@pytest.mark.parametrize(("answer", "words"), CHINESE_MARKUP)
def test_chinese(answer: str, words: str) -> None:
    assert spoken(answer, Language.CHINESE) == words
