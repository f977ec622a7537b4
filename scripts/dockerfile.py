"""Reads deploy/Dockerfile into stages and instructions. It refuses unknown instructions."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
KNOWN = ["FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"]


@dataclass(frozen=True)
class Instruction:
    """One instruction: its `word` in upper case, its options (`--from=build`), and the `rest`."""

    word: str
    options: Mapping[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.rest)

    @property
    def pairs(self) -> dict[str, str]:
        """Return the variables of ARG or ENV. A name without a value is empty."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words)}

    @property
    def command(self) -> list[str]:
        """Return the command of RUN, CMD or HEALTHCHECK CMD, from either form."""
        text = re.sub(r"^CMD\s+", "", self.rest)
        return list(json.loads(text)) if text.startswith("[") else ["/bin/sh", "-c", text]


@dataclass
class Stage:
    """One stage: its base image, its name ("" for none), and its instructions after FROM."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, word: str) -> Instruction:
        """Return the last instruction `word`, which is the valid one. Raises ValueError if there is none."""
        found = [each for each in self.instructions if each.word == word]
        if not found:
            raise ValueError(f"stage {self.name or 'last'} has no {word}")
        return found[-1]


def read(path: Path = DOCKERFILE) -> list[Stage]:
    """Return the stages of a Dockerfile. Raises ValueError for an instruction that is not one of KNOWN."""
    text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, re.sub(r"\\\n", " ", text).splitlines())):
        instruction = _instruction(line)
        if instruction.word == "FROM":
            image, _, name = instruction.rest.partition(" AS ")
            stages.append(Stage(image.strip(), name.strip()))
        else:
            stages[-1].instructions.append(instruction)
    return stages


def _instruction(line: str) -> Instruction:
    word, _, rest = line.partition(" ")
    if word not in KNOWN:
        raise ValueError(f"{word!r} is not one of {', '.join(KNOWN)}")
    options = {}
    while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest := rest.strip()):
        options[found[1]] = found[2]
        rest = rest[found.end() :]
    return Instruction(word, options, rest)
