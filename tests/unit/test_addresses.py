"""Addresses: what is spoken of URLs, e-mail addresses, paths and names of files."""

import pytest
from support.spoken import spoken

from mirrorchat.engines import Language
from mirrorchat.text.normalization.normalize import normalize_text

ENGLISH_ADDRESSES = [
    ("See https://www.example.com/a/b?c=1&d=2#e for more.", "See example dot com for more."),
    ("Visit docs.python.org/3/library today.", "Visit docs dot python dot org today."),
    (
        "It is at https://en.wikipedia.org/wiki/Mercury_(planet), I think.",
        "It is at en dot wikipedia dot org, I think.",
    ),
    ("Open http://localhost:8080/health now.", "Open localhost port eight zero eight zero now."),
    (
        "Open http://192.168.1.1:8080/ now.",
        "Open one nine two dot one six eight dot one dot one port eight zero eight zero now.",
    ),
    (
        "Write to john.smith-2@mail.example.co.uk now.",
        "Write to john dot smith dash two at mail dot example dot co dot uk now.",
    ),
    ("mailto:help@example.com works.", "help at example dot com works."),
    ("www.bbc.co.uk is fine.", "bbc dot co dot uk is fine."),
    (
        "Edit /etc/nginx/nginx.conf and ~/.bashrc please.",
        "Edit slash etc slash nginx slash nginx dot conf and tilde slash dot bashrc please.",
    ),
    (
        "Run ./run.sh or ../build/out.txt now.",
        "Run dot slash run dot S H or dot dot slash build slash out dot T X T now.",
    ),
    (
        "It is in C:\\Users\\ann\\report.pdf today.",
        "It is in C colon backslash Users backslash ann backslash report dot P D F today.",
    ),
    ("Open src/main.py and README.md there.", "Open src slash main dot P Y and README dot M D there."),
    (
        "The file archive.tar.gz and docker-compose.yml.",
        "The file archive dot tar dot G Z and docker-compose dot Y M L.",
    ),
    ("Set the .env file and .gitignore.", "Set the dot env file and dot gitignore."),
    ("The color #FF5733 is warm.", "The color hash F F five seven three three is warm."),
    ("Follow @OpenAI and #AI or #MachineLearning.", "Follow at Open A I and hashtag A I or hashtag MachineLearning."),
    ("and/or, km/h, 24/7, he/she, A/B test", "and or, kilometers per hour, twenty-four seven, he or she, A B test"),
    ("example.com, example.org and 12306.cn", "example dot com, example dot org and one two three zero six dot cn"),
    ("Node.js and ASP.NET and e.g. this.", "Node dot J S and ASP.NET and for example this."),
    ("Look in /tmp and /usr/local/bin.", "Look in slash tmp and slash usr slash local slash bin."),
    ("It ended.So we left.", "It ended.So we left."),
    ("https://github.com/user/repo.git", "github dot com"),
    ("ftp://files.example.net/x.zip", "files dot example dot net"),
    ("user@localhost is no mail", "user at localhost is no mail"),
    ("(see https://example.com).", "(see example dot com)."),
]
CHINESE_ADDRESSES = [
    ("请看https://www.example.com/a/b?c=1网站。", "请看 example 点 com 网站。"),
    ("访问docs.python.org了解。", "访问 docs 点 python 点 org 了解。"),
    ("打开http://localhost:3000/看看。", "打开 localhost 端口三零零零看看。"),
    ("地址是http://192.168.1.1:8080。", "地址是一九二点一六八点一点一端口八零八零。"),
    ("发邮件到zhang.san_88@qq.com。", "发邮件到 zhang 点 san 下划线八八艾特 qq 点 com。"),
    ("请看www.baidu.com，谢谢。", "请看 baidu 点 com，谢谢。"),
    ("编辑/etc/hosts和~/.bashrc文件。", "编辑斜杠 etc 斜杠 hosts 和波浪号斜杠点 bashrc 文件。"),
    ("运行./run.sh即可。", "运行点斜杠 run 点 S H 即可。"),
    ("在C:\\Users\\ann目录。", "在 C 冒号反斜杠 Users 反斜杠 ann 目录。"),
    ("打开src/main.py文件和报告.pdf。", "打开 src 斜杠 main 点 P Y 文件和报告点 P D F。"),
    ("压缩包archive.tar.gz很大。", "压缩包 archive 点 tar 点 G Z 很大。"),
    ("颜色#FF5733很暖。", "颜色井号 F F 五七三三很暖。"),
    ("关注@小明和#人工智能#话题，#音乐", "关注艾特小明和话题人工智能话题，话题音乐"),
    ("网址163.com和12306.cn", "网址一六三点 com 和一二三零六点 cn"),
    ("百度（https://baidu.com）很好。", "百度（baidu 点 com）很好。"),
    ("配置.env文件", "配置点 env 文件"),
]


@pytest.mark.parametrize(("answer", "words"), ENGLISH_ADDRESSES)
def test_english(answer: str, words: str) -> None:
    assert spoken(answer, Language.ENGLISH) == words
    assert normalize_text(words, Language.ENGLISH) == words


@pytest.mark.parametrize(("answer", "words"), CHINESE_ADDRESSES)
def test_chinese(answer: str, words: str) -> None:
    assert spoken(answer, Language.CHINESE) == words
    assert normalize_text(words, Language.CHINESE) == words
