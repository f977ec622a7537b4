"""Addresses: a URL is spoken as its site's name, an e-mail address in full, a path and a file's name by their parts."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mirrorchat.text.normalization.acronyms import FILE_ENDINGS
from mirrorchat.text.normalization.patterns import Rule, any_of, rule
from mirrorchat.text.sentences.speech_length import HAN

_TOP = (
    "com|org|net|edu|gov|mil|int|io|cn|uk|de|ai|dev|app|co|info|tv|jp|fr|ru|xyz|tech|eu|ca|au|br|ch|nl|kr|hk|tw|sg|blog"
    "|site|online|store|cloud|gg|wiki|shop|page|live"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = rf"(?:{_LABEL}\.){{1,6}}[A-Za-z]{{2,24}}"
_PATH = r"(?:[/?#](?:[A-Za-z0-9_.~:/?#@!$&*+=%,;'-]|\([A-Za-z0-9_.,-]{0,100}\)){0,1000}(?<![.,;:!?'*]))?"
_PORT = r"(?::(?P<port>\d{1,5}))?"
_NOT_ADDRESS_BEFORE = r"(?<![A-Za-z0-9_@./-])"
_URL = (
    r"(?:https?|ftps?|wss?|ssh|git)://(?:[A-Za-z0-9_.:-]{1,64}@)?"
    rf"(?P<site>[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,200}}[A-Za-z0-9])?){_PORT}{_PATH}"
)
_SITE = (
    rf"{_NOT_ADDRESS_BEFORE}(?P<site>(?:www\.{_DOMAIN}|(?:{_LABEL}\.){{1,6}}(?:{_TOP})|localhost(?=:\d))){_PORT}"
    rf"(?![A-Za-z0-9_@-]|\.[A-Za-z0-9]){_PATH}"
)
_MAIL = rf"(?:mailto:)?(?<![A-Za-z0-9_@.+-])(?P<mail>[A-Za-z0-9_.+-]{{1,64}}@{_DOMAIN})(?![A-Za-z0-9_-])"
_FOLDER = r"[A-Za-z0-9_.@+-]{1,64}"
_UNIX_PATH = (
    rf"(?<![A-Za-z0-9_./:~)<-])(?:(?:~|\.{{1,2}})/(?:{_FOLDER})?"
    rf"|/(?=[0-9.]{{0,20}}[A-Za-z_-]){_FOLDER}(?=/))(?:/{_FOLDER}){{0,20}}/?(?<![.])"
)
_KNOWN_FOLDER = (
    r"(?<![A-Za-z0-9_./:~)-])/(?:bin|boot|dev|etc|home|lib|mnt|opt|proc|root|run|srv|sys|tmp|usr|var)(?![A-Za-z0-9_/-])"
)
_ENDING = any_of(FILE_ENDINGS)
_RELATIVE_PATH = (
    rf"{_NOT_ADDRESS_BEFORE}(?:[A-Za-z0-9_-]{{1,64}}/){{1,20}}[A-Za-z0-9_-]{{1,64}}(?:\.[A-Za-z0-9_-]{{1,30}}){{0,3}}"
    rf"\.{_ENDING}(?![A-Za-z0-9_])"
)
_WINDOWS_PATH = r"(?<![A-Za-z0-9_])[A-Za-z]:\\(?:[A-Za-z0-9_.-]{1,64}\\?){0,20}(?<![.])"
_FILE = (
    rf"{_NOT_ADDRESS_BEFORE}(?P<name>[A-Za-z0-9_][A-Za-z0-9_-]{{0,60}}(?:\.[A-Za-z_-][A-Za-z0-9_-]{{0,29}}){{0,3}})"
    rf"\.(?P<ending>{_ENDING})(?![A-Za-z0-9_]|\.[A-Za-z0-9])"
)
_HIDDEN_FILE = (
    r"(?<![A-Za-z0-9_./)])\.(?P<hidden>env|git|ssh|bashrc|zshrc|gitignore|dockerignore|vimrc|npmrc|config|github)"
    r"(?![A-Za-z0-9_/])"
)
_COLOR = r"(?<![A-Za-z0-9_&])#(?=[A-Fa-f]{0,5}\d)(?P<color>[0-9A-Fa-f]{6})(?![A-Za-z0-9_])"


@dataclass(frozen=True)
class AddressWords:
    """What one language says for the signs of an address."""

    signs: Mapping[str, str]
    digits: Callable[[str], str]
    number: Callable[[str], str]
    port: str  # "port {0}"
    file: str  # what stands between a file's name and its ending


def address_rules(words: AddressWords) -> tuple[Rule, ...]:
    """Return the rules that speak addresses in the language of `words`."""

    def dictated(address: str) -> str:
        spoken = "".join(words.signs.get(character, character) for character in address)
        return re.sub(r"\d{1,4000}", lambda run: words.digits(run[0]), spoken)

    def site(match: re.Match[str]) -> str:
        name, port = dictated(match["site"].removeprefix("www.")), match["port"]
        if not port:
            return name
        return name + words.port.format(words.number(port) if len(port) < 4 else words.digits(port))

    def path(match: re.Match[str]) -> str:
        folders, dot, ending = match[0].rpartition(".")
        if not dot or ending not in FILE_ENDINGS:
            return dictated(match[0].replace("_", " ").rstrip("/\\") or match[0])
        return dictated(folders.replace("_", " ")) + words.file + FILE_ENDINGS[ending]

    def file(match: re.Match[str]) -> str:
        name = match["name"].replace("_", " ").replace(".", words.file)
        return f"{name}{words.file}{FILE_ENDINGS[match['ending']]}"

    def color(match: re.Match[str]) -> str:
        return words.signs["#"] + dictated(re.sub("[A-F]", r" \g<0> ", match["color"].upper()))

    return (
        rule(_MAIL, lambda match: dictated(match["mail"])),
        rule(_URL, site),
        rule(_SITE, site),
        rule(f"{_WINDOWS_PATH}|{_RELATIVE_PATH}|{_UNIX_PATH}|{_KNOWN_FOLDER}", path),
        rule(_FILE, file),
        rule(rf"(?<=[{HAN}])\.(?P<ending>{_ENDING})(?![A-Za-z0-9_])",
             lambda match: words.file.lstrip() + FILE_ENDINGS[match["ending"]]),
        rule(_HIDDEN_FILE, lambda match: f"{words.file.lstrip()}{match['hidden']}"),
        rule(_COLOR, color),
    )  # fmt: skip
