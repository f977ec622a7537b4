"""The Chinese of docs/zh/configuration.md's tables, found by the English text as gettext does it.

A text of settings.py that was changed is not found any more. So no Chinese text outlives the English one that it was
written for.
"""

import re
from pathlib import Path

# Descriptions of values that hold numbers or choices. Chinese is found for the groups `part` and `unit` in their turn.
PATTERNS = (
    (r"a whole number from (?P<low>\S+) to (?P<high>\S+)", "{low} 到 {high} 的整数"),
    (r"a number from (?P<low>\S+) to (?P<high>\S+)", "{low} 到 {high} 的数"),
    (r"one of (?P<names>[^ ]+(, [^ ]+)*)", "{names} 之一"),
    (
        r"one of (?P<names>.*), or a dict with one of them for (?P<first>\w+) and (?P<second>\w+)",
        "{names} 之一，或分别为 {first} 和 {second} 指定的字典",
    ),
    (r"(?P<part>.*), or None", "{part}，或 None"),
    (r"(?P<part>.*), in (?P<unit>\w+)", "{part}，单位：{unit}"),
    (r"a list; each entry is (?P<part>.*)", "列表，每一项为{part}"),
)


class Catalogue:
    """The Chinese texts of a .po file by the English ones, and which of them were not used yet."""

    def __init__(self, path: Path) -> None:
        pairs = re.findall(r'^msgid "(.*)"\nmsgstr "(.+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
        self._texts: dict[str, str] = dict(pairs)
        self.unused = set(self._texts)

    def __call__(self, text: str) -> str:
        """Return the Chinese of an English text. Raises ValueError when there is none."""
        if text in self._texts:
            self.unused.discard(text)
            return self._texts[text]
        for pattern, chinese in PATTERNS:
            if match := re.fullmatch(pattern, text):
                return chinese.format(**{name: self._part(name, part) for name, part in match.groupdict().items()})
        raise ValueError(f"docs/zh/configuration.po has no Chinese for {text!r}")

    def _part(self, name: str, text: str) -> str:
        return self(text) if name in ("part", "unit") else text.replace(", ", "、")
