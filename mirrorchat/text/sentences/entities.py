"""HTML entities in streamed text (`&amp;`, `&#39;`) become their characters, before a `;` could end a sentence."""

import html
import re

# "&amp ;" and "& amp;" occur in texts that were translated; "&amp" without its end is decoded before white space only.
_MAY_BE_ENTITY = re.compile(r"& ?#?[A-Za-z0-9]{0,32} ?;?")
_ENTITY = re.compile(r"&#?[A-Za-z0-9]{1,32};")
_TORN = re.compile(r"&(?: (?=[^;]{1,10};))?(?P<name>amp|lt|gt|quot|apos|nbsp|hellip|mdash|ndash|#\d{2,4}) ?(?:;|$)")
# A tag that was escaped is spoken: its brackets must not look like markup.
_NO_MARKUP = {"<": "＜", ">": "＞"}


class Entities:
    """Decodes the entities in a stream of characters, those that were escaped twice, too (`&amp;quot;`).

    The stream is held back from an ampersand on as long as an entity may follow.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """Return what `text`, the next part of the stream, releases."""
        if not self._held and "&" not in text:
            return text
        return "".join(map(self._step, text))

    def flush(self) -> str:
        """End the stream: return the text that is held back."""
        held, self._held = self._held, ""
        return _decoded(held)

    def _step(self, character: str) -> str:
        if not self._held:
            if character != "&":
                return character
            self._held = character
            return ""
        held = self._held + character
        if character == ";" and _MAY_BE_ENTITY.fullmatch(held):
            decoded = _decoded(held)
            self._held = decoded if decoded == "&" else ""
            return "" if self._held else decoded
        if _MAY_BE_ENTITY.fullmatch(held):
            self._held = held
            return ""
        ends = self._held.endswith(" ") or not (character.isalnum() or character in "=&")
        released = _decoded(self._held) if ends else self._held
        self._held = "&" if character == "&" else ""
        return released + ("" if self._held else character)


def _decoded(written: str) -> str:
    """Return the characters of an entity, or `written` itself if it is none."""
    torn = _TORN.fullmatch(written.rstrip() if written.endswith(" ") else written)
    entity = f"&{torn['name']};" if torn else written
    characters = html.unescape(entity) if _ENTITY.fullmatch(entity) else written
    characters = "".join(_NO_MARKUP.get(character, character) for character in characters if character != "\ufffd")
    return characters + (" " if torn and written.endswith(" ") else "")
