"""Texts to speak in tests: a sentence, and many sentences, in each language."""

from mirrorchat.engines import Language

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
LONG = {
    ENGLISH: " ".join(
        f"The {word} traveller walked over the hill, past the old mill and the quiet river, and she came home late."
        for word in ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    ),
    CHINESE: "".join(
        f"{word}天早上，装着双层床的长窗船从庄上的双桥穿过，船长把装双黄蛋的筐放在窗旁。" for word in "春夏秋冬雨雪风霜"
    ),
}
SHORT = {ENGLISH: "The weather is nice today.", CHINESE: "今天天气很好。"}
