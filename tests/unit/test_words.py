"""The field's words: names and documents use none of the words that this project once had of its own.

docs/glossary.md explains the terms. A name is split into its words, so that `lead_s` counts and `misleading` does not.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import ROOT

# A word that names no longer hold, and the term to use.
NAMES = {
    "abandon": "release_early",
    "awaited": "buffer_low",
    "cutter": "splitter",
    "draw": "sample",
    "drawn": "sampled",
    "duds": "empty packets",
    "facts": "metadata",
    "leftovers": "orphans",
    "lead": "prebuffer",
    "lend": "preempt",
    "lender": "preempted",
    "machine": "hardware",
    "material": "source files",
    "payer": "subject",
    "readings": "hypotheses",
    "said": "item",
    "seat": "schedule",
    "seated": "scheduled",
    "surest": "highest confidence",
    "sureness": "confidence",
    "wanted": "requested",
}
# Spellings that nothing holds, names and prose alike.
SPELLINGS = re.compile(r"(?:recogni|synthesi|normali|tokeni|quanti)s(?:e|es|ed|er|ers|ing|ation)\b", re.IGNORECASE)
# Phrases that documents do not hold.
PHRASES = re.compile(
    r"\b(?:head start|leftovers?|duds?|surest|carried in|stands? above|be it there or not|its own chance|drawn again"
    r"|the lead|readings|cutters?|payers?|who asks more|who finds|whoever has)\b",
    re.IGNORECASE,
)
# Phrases that modules do not hold, as they reach callers.
SOURCE_PHRASES = re.compile(r"\b(?:coloured toward)\b", re.IGNORECASE)
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if not path.name.endswith(".zh-CN.md") and "zh" not in path.parts and path.name != "CHANGELOG.md"
)
MODULES = sorted((ROOT / "mirrorchat").rglob("*.py"))


def names(tree: ast.AST) -> Iterator[str]:
    """Yield every name that a module defines: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def words(name: str) -> list[str]:
    """Return the words of a name: `SpokenAudio` and `spoken_audio` are two."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def in_one_line(path: Path) -> str:
    """Return a document's prose: without code blocks, code spans and line ends."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(text.split())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "mirrorchat")))
def test_names_are_the_fields(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    found = {f"{name} -> {NAMES[word]}" for name in names(ast.parse(source)) for word in words(name) if word in NAMES}
    assert not found
    assert not [*SOURCE_PHRASES.findall(source), *SPELLINGS.findall(source)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_are_in_the_fields_words(path: Path) -> None:
    text = in_one_line(path)
    assert not [*PHRASES.findall(text), *SPELLINGS.findall(text)]


def test_the_files_are_named_so_too() -> None:
    assert not [path for path in MODULES if set(words(path.stem)) & NAMES.keys()]
