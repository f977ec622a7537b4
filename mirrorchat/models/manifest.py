"""The releases that can be installed: their files, repositories and licences."""

from dataclasses import dataclass
from enum import StrEnum


class Engine(StrEnum):
    """The engine that runs a model."""

    WENET = "wenet"
    XTTS = "xtts"


@dataclass(frozen=True)
class Licence:
    """The terms of a model. `code` is the value for `--accept-licence`."""

    code: str
    name: str
    terms: str
    url: str


@dataclass(frozen=True)
class ReleasedFile:
    """A published file. If nobody has published its SHA-256, `sha256` is empty and `size_bytes` is approximate."""

    name: str
    size_bytes: int
    sha256: str = ""

    @property
    def limit_bytes(self) -> int:
        """Return the largest size that this file can have."""
        return self.size_bytes if self.sha256 else 2 * self.size_bytes


@dataclass(frozen=True)
class Repository:
    """A repository of published files. ModelScope stores the WeNet models as a data set, which has another address."""

    name: str
    revision: str
    is_dataset: bool = False


@dataclass(frozen=True)
class Release:
    """A published model. `folder` is its folder in models_dir; alternatives for one purpose share a folder."""

    name: str
    title: str
    engine: Engine
    folder: str
    languages: tuple[str, ...]
    licence: Licence
    files: tuple[ReleasedFile, ...]
    hugging_face: Repository
    modelscope: Repository

    @property
    def is_archive(self) -> bool:
        return self.files[0].name.endswith(".tar.gz")

    @property
    def download_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def installed_bytes(self) -> int:
        """Return the approximate size of the installed model: compression hardly shrinks weights."""
        return round(self.download_bytes * (1.15 if self.is_archive else 1.0))

    @property
    def unpacked_limit_bytes(self) -> int:
        """Return the largest size that the unpacked archive can have."""
        return 4 * self.download_bytes + 16_000_000


CPML = Licence(
    "cpml",
    "Coqui Public Model License 1.0.0",
    "non-commercial use only, of the model and of what it speaks",
    "https://coqui.ai/cpml",
)
CC_BY = Licence(
    "cc-by-4.0",
    "Creative Commons Attribution 4.0, as the LibriSpeech corpus",
    "any use, with attribution",
    "https://creativecommons.org/licenses/by/4.0/",
)
APACHE = Licence(
    "apache-2.0",
    "Apache License 2.0, as the AISHELL corpus",
    "any use, with its notices",
    "https://www.apache.org/licenses/LICENSE-2.0",
)
WENETSPEECH = Licence(
    "wenetspeech", "the terms of the WenetSpeech corpus", "non-commercial use only", "https://wenet.org.cn/WenetSpeech/"
)
GIGASPEECH = Licence(
    "gigaspeech",
    "the terms of the GigaSpeech corpus",
    "non-commercial use only",
    "https://github.com/SpeechColab/GigaSpeech",
)

_WENET_HUB = Repository("openspeech/wenet-models", "main")
_WENET_MODELSCOPE = Repository("wenet/wenet_pretrained_models", "master", is_dataset=True)


def _wenet(name: str, corpus: str, language: str, licence: Licence, size_mb: int) -> Release:
    return Release(
        name=name,
        title=f"WeNet U2++ conformer, {corpus}",
        engine=Engine.WENET,
        folder="wenet-zh" if language == "chinese" else "wenet-en",
        languages=(language,),
        licence=licence,
        files=(ReleasedFile(f"{corpus.lower()}_u2pp_conformer_exp.tar.gz", size_mb * 1_000_000),),
        hugging_face=_WENET_HUB,
        modelscope=_WENET_MODELSCOPE,
    )


_RELEASES = (
    Release(
        name="xtts-v2",
        title="XTTS v2",
        engine=Engine.XTTS,
        folder="xtts-v2",
        languages=("chinese", "english"),
        licence=CPML,
        files=(
            ReleasedFile("config.json", 4_368, "ef262b1454dd2a77e1461b0b2cd53e19b8a7624cc131b837d36df67356bc75e8"),
            ReleasedFile("vocab.json", 361_219, "928260878a59da8a72a2a5b7687fea29d5106137669d90945430fe17e415304a"),
            ReleasedFile(
                "speakers_xtts.pth", 7_754_818, "f0f6137c19a4eab0cbbe4c99b5babacf68b1746e50da90807708c10e645b943b"
            ),
            ReleasedFile(
                "model.pth", 1_867_929_118, "c7ea20001c6a0a841c77e252d8409f6a74fb423e79b3206a0771ba5989776187"
            ),
        ),
        hugging_face=Repository("coqui/XTTS-v2", "6c2b0d75eae4b7047358e3b6bd9325f857d43f77"),
        modelscope=Repository("AI-ModelScope/XTTS-v2", "master"),
    ),
    _wenet("wenet-zh", "WenetSpeech", "chinese", WENETSPEECH, 499),
    _wenet("wenet-zh-aishell", "AISHELL", "chinese", APACHE, 191),
    _wenet("wenet-en", "LibriSpeech", "english", CC_BY, 195),
    _wenet("wenet-en-gigaspeech", "GigaSpeech", "english", GIGASPEECH, 504),
)
RELEASES: dict[str, Release] = {release.name: release for release in _RELEASES}
LICENCES: dict[str, Licence] = {release.licence.code: release.licence for release in _RELEASES}
