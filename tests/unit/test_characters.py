"""Characters of every shape, and scripts that a voice cannot read."""

import pytest
from support.spoken import spoken

from mirrorchat.engines import Language
from mirrorchat.text.normalization.characters import with_plain_characters
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.normalization.scripts import XTTS_SCRIPTS
from mirrorchat.text.sentences.entities import Entities
from mirrorchat.text.splitter import SentenceSplitter

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE

ENGLISH_CHARACTERS = [
    ("𝐇𝐞𝐥𝐥𝐨, 𝘄𝗼𝗿𝗹𝗱!", "Hello, world!"),
    ("𝒯𝒽𝑒 𝓺𝓾𝓲𝓬𝓴 fox", "The quick fox"),
    ("Ⓔⓐⓢⓨ as ⓐⓑⓒ", "Easy as abc"),
    ("Vitamin 🅰 and 🅱️", "Vitamin A and B"),
    ("Ｆｕｌｌ ｗｉｄｔｈ ４２", "Full width forty-two"),
    ("ʜᴇʟʟᴏ there", "hello there"),
    ("ﬁnd the oﬃce", "find the office"),
    ("H̸̡̢e̷͓͑l̶̰̈́lo to you", "Hello to you"),
    ("a s̶t̶r̶u̶c̶k̶ word", "a struck word"),
    ("cafe\u0301 and naïve", "café and naïve"),
    ("zero\u200bwidth and soft\u00adhyphen", "zerowidth and softhyphen"),
    ("\u202eplain\u202c \u2066text\u2069", "plain text"),
    ("5 ㎏ and 20 ㎡", "five kilograms and twenty square meters"),
    ("The 5ᵗʰ and ᵗⁱⁿʸ text", "The fifth and tiny text"),
    ("𝟏𝟐 apples, ③ pears", "twelve apples, three pears"),
    ("10⁻⁹ m and 2¹⁶", "ten to the power of minus nine meters and two to the power of sixteen"),
    ("the α-helix and πr²", "the alpha-helix and pi r squared"),
    ("Really‼", "Really!!"),
    ("🅷🅴🅻🅻🅾 and ⒣⒠⒧⒧⒪", "HELLO and hello"),
    ("ᴴᵉˡˡᵒ there, ꜰᴏɴᴛ", "Hello there, font"),
    ("Ηеllo with Greek and Cyrillic letters", "Hello with Greek and Cyrillic letters"),
    ("See ｗｗｗ．ｅｘａｍｐｌｅ．ｃｏｍ now", "See example dot com now"),
    ("1⁄2 cup at 20 ℃ or in ℃", "one half cup at twenty degrees Celsius or in degrees Celsius"),
    ("\ufffd \x1b[31mred\x1b[0m text", "red text"),
]
CHINESE_CHARACTERS = [
    ("这是𝗕𝗼𝗹𝗱字体", "这是 Bold 字体"),
    ("选Ⓐ还是ⓑ", "选 A 还是 b"),
    ("维生素🅱️很重要", "维生素 B 很重要"),
    ("ＡＰＩ接口", "A P I 接口"),
    ("共４２人", "共四十二人"),
    ("你\u200b好\u2060吗", "你好吗"),
    ("好̸̡̢的", "好的"),
    ("重5㎏，面积20㎡", "重五公斤，面积二十平方米"),
    ("面积单位是㎡", "面积单位是平方米"),
    ("第①步", "第一步"),
    ("希腊字母α和Ω", "希腊字母阿尔法和欧米伽"),
    ("圆周率π约为3.14", "圆周率派约为三点一四"),
    ("㊗你成功", "祝你成功"),
    ("10⁻⁹米和10²⁴千克", "十的负九次方米和十的二十四次方千克"),
    ("太好了‼", "太好了!!"),
    ("㊀是一，㈡是二", "一是一，二是二"),
    ("单位是℃", "单位是摄氏度"),
]
ENGLISH_SCRIPTS = [
    ("The Thai word สวัสดี means hello.", "The Thai word, means hello."),
    ("In Thai it is สวัสดี.", "In Thai it is."),
    ("สวัสดี is Thai.", "is Thai."),
    ("Say “สวัสดี” (sawatdee) now.", "Say, (sawatdee) now."),
    ("Peace is שלום (shalom) there.", "Peace is, (shalom) there."),
    ("Hello in Russian: привет, or so.", "Hello in Russian, or so."),
    ("Greek λόγος means word.", "Greek, means word."),
    ("Japanese さくら and カタカナ are kana.", "Japanese, and, are kana."),
    ("Little is /ˈlɪtəl/ in English.", "Little is, in English."),
    ("Tiếng Việt is Vietnamese.", "Tieng Viet is Vietnamese."),
    ("Burmese မြန်မာ, Khmer ខ្មែរ and Lao ລາວ.", "Burmese, Khmer, and Lao."),
    ("The Hindi word नमस्ते means hello.", "The Hindi word नमस्ते means hello."),
    ("Korean 안녕 means hello.", "Korean 안녕 means hello."),
    ("Łódź, São Paulo and Zürich", "Łódź, São Paulo and Zürich"),
]
CHINESE_SCRIPTS = [
    ("泰语“สวัสดี”是你好的意思。", "泰语，是你好的意思。"),
    ("泰语สวัสดี是你好。", "泰语，是你好。"),
    ("俄语привет的意思是你好。", "俄语，的意思是你好。"),
    ("日语的さくら是樱花。", "日语的，是樱花。"),
    ("希伯来语（שלום）是平安。", "希伯来语，是平安。"),
    ("音标是/həˈləʊ/。", "音标是。"),
    ("阿拉伯语：مرحبا，你好。", "阿拉伯语，你好。"),
    ("希腊语λόγος是词。", "希腊语，是词。"),
    ("印地语नमस्ते是你好。", "印地语नमस्ते是你好。"),
]
ENTITIES = [
    ("Tom &amp; Jerry aren&#39;t here.", "Tom & Jerry aren't here."),
    ("&quot;Hi&quot; &#x27;x&#X27; &hellip;", "\"Hi\" 'x' …"),
    ("5 &lt; 6 &gt; 2", "5 ＜ 6 ＞ 2"),
    ("&amp;quot;twice&amp;quot; &amp;amp;", '"twice" &'),
    ("R&D, AT&T; &unknown; x&y", "R&D, AT&T; &unknown; x&y"),
    ("Tom &amp Jerry & amp; x &amp ; y", "Tom & Jerry & x & y"),
    ("https://a.b/?c=1&lt=2&copy=3", "https://a.b/?c=1&lt=2&copy=3"),
    ("a&nbsp;b &ldquo;c&rdquo;&mdash;d", "a\u00a0b “c”—d"),
    ("guitar & amp set", "guitar & amp set"),
    ("&#0;&#99999999;&#xD800;x", "x"),
    ("&", "&"),
]


@pytest.mark.parametrize(("written", "words"), ENGLISH_CHARACTERS + ENGLISH_SCRIPTS)
def test_english(written: str, words: str) -> None:
    assert spoken(written, ENGLISH) == words
    assert normalize_text(words, ENGLISH) == words


@pytest.mark.parametrize(("written", "words"), CHINESE_CHARACTERS + CHINESE_SCRIPTS)
def test_chinese(written: str, words: str) -> None:
    assert spoken(written, CHINESE) == words
    assert normalize_text(words, CHINESE) == words


@pytest.mark.parametrize(("written", "characters"), ENTITIES)
def test_entities_in_a_stream(written: str, characters: str) -> None:
    entities = Entities()
    assert entities.push(written) + entities.flush() == characters
    assert "".join(map(entities.push, written)) + entities.flush() == characters


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Tom &amp; Jerry aren&#39;t here; it&#39;s late.", "Tom and Jerry aren't here; it's late."),
        ("Use the &lt;div&gt; tag.", "Use the div tag."),
        ("It is 5&nbsp;km away.", "It is five kilometers away."),
        ("If 5 &lt; 6 then go.", "If five less than six then go."),
        ("Caf&eacute; &copy; 2024", "Café twenty twenty-four"),
        ("AT&amp;T&reg; and Q&amp;A: 5 &gt; 3", "A T and T and Q and A: five greater than three"),
        ("It&rsquo;s 20&deg;C, &frac12; cup, &euro;5", "It’s twenty degrees Celsius, one half cup, five euros"),
        ("x&sup2; + y&sup2; and H&#8322;O", "x squared plus y squared and H two O"),
        ("Price &amp ; cost &amp more", "Price and cost and more"),
        ("&lt;think&gt; is a tag", "think is a tag"),
    ],
)
def test_english_entities(written: str, words: str) -> None:
    assert spoken(written, ENGLISH) == words


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("他说&quot;你好&quot;，AT&amp;T。", '他说"你好"，A T 和 T。'),
        ("3 &lt; 5，&nbsp;对吗？", "三小于五，对吗？"),
        ("&ldquo;好的&rdquo;，他说。", "“好的”，他说。"),
        ("R&amp;D部门&hellip;&hellip;", "R 和 D 部门……"),
        ("3&times;4&ge;12，5&le;6", "三乘四大于等于十二，五小于等于六"),
        ("温度20&deg;C，价格&yen;9", "温度二十摄氏度，价格九元"),
        ("&lt;b&gt;重点&lt;/b&gt;内容", "重点内容"),
        ("&#20320;&#22909;，1&frasl;2", "你好，二分之一"),
    ],
)
def test_chinese_entities(written: str, words: str) -> None:
    assert spoken(written, CHINESE) == words


def test_xtts_reads_what_espeak_would_spell() -> None:
    assert normalize_text("Say привет, सलाम or สวัสดี now.", ENGLISH, XTTS_SCRIPTS) == "Say привет, सलाम or, now."


def test_an_answer_that_no_voice_reads_has_no_sentence() -> None:
    splitter = SentenceSplitter(ENGLISH)
    assert splitter.feed("สวัสดีครับ ยินดีต้อนรับ\n") + splitter.flush() == []


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("x⁻¹ eⁱˣ 2ⁿ⁺¹ 10²⁴5", "x^-1 e^{ix} 2^{n+1} 10^{24}5"),
        ("log₂8 H₂O C₆H₁₂O₆ x₁ aₙ₊₁", "log_{2}8 H2O C6H12O6 x_1 a_{n+1}"),
        ("Ca²⁺ SO₄²⁻", "Ca^{2+} SO4^{2-}"),
        ("½ ① ❷ Ⅲ ٣ 𝟒 ㎡", " 1/2  1   2  3 3 4 m^2"),
        ("ASCII stays", "ASCII stays"),
    ],
)
def test_plain_characters(written: str, plain: str) -> None:
    assert with_plain_characters(written) == plain
