"""What the chosen engines take of each device's memory, part by part, for one choice of weights, batch and place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mirrorchat.asr import WenetWeights, choose_weights
from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.hardware import native
from mirrorchat.hardware.host_memory import resident_bytes
from mirrorchat.settings import Settings
from mirrorchat.startup.checkpoint_bytes import WENET_BYTES, Bytes, WenetBytes, XttsBytes, runtime_bytes
from mirrorchat.startup.engine_choice import (
    OWN_PACKAGE,
    WENET_FILES,
    WENET_PACKAGES,
    XTTS_FILES,
    XTTS_PACKAGES,
    chosen_recognizer,
    chosen_synthesizer,
    missing,
)
from mirrorchat.wenet import checkpoint as wenet_checkpoint
from mirrorchat.xtts.linear import WeightMode

# Of the server's process, measured on two cores with random weights of the real size: 0.43 GB once torch and coqui-tts
# are imported, 0.6 GB beyond what the tensors take when every kind of operation has run once.
PROCESS_BYTES = 600_000_000
# Of cuBLAS, cuDNN and the kernels that are loaded when they are first used. Not measured: there was no GPU. The context
# itself is there once the free memory has been asked for, and is not free by then.
CUDA_BYTES = 600_000_000
PACKAGE_WEIGHTS = "*.pt", "*.safetensors", "*.bin"


@dataclass(frozen=True)
class Choice:
    """What of the settings can be stepped down. `wenet_weights` may be `auto`, as the device decides then."""

    xtts_weights: WeightMode
    xtts_batch: int
    wenet_weights: str
    wenet_device: str


@dataclass(frozen=True)
class Part:
    """A part of a model at its `place`, a device's name; `note` says what is not in the numbers."""

    name: str
    place: str
    bytes: Bytes
    note: str = ""


@dataclass(frozen=True)
class Demand:
    """The sizes of what will be loaded: read once, reckoned for any choice. `place` is XTTS's device."""

    place: str
    xtts: XttsBytes | None
    xtts_cache_bytes: int
    wenet: Mapping[Language, WenetBytes]
    fixed: Sequence[Part]
    native: bool

    @classmethod
    def of(cls, settings: Settings, place: torch.device) -> "Demand":
        """Read the sizes of what `settings` choose. A model that cannot be read is left to the engine to complain of.

        Raises ConfigurationError.
        """
        fixed, wenet = [_process()], {}
        if place.type == "cuda":
            fixed.append(Part("CUDA's libraries", str(place), Bytes(CUDA_BYTES)))
        for language in Language:
            found = _recognizer(settings, language, place)
            if isinstance(found, WenetBytes):
                wenet[language] = found
            elif found is not None:
                fixed.append(found)
        in_library = native.library() is not None
        return cls(str(place), _xtts(settings), settings.xtts_cache_mb * 1_000_000, wenet, fixed, in_library)

    @property
    def gpu(self) -> bool:
        return self.place.startswith("cuda")

    @property
    def light_wenet(self) -> str:
        """Return the weights of WeNet that take least where they are."""
        return "bf16" if self.gpu else "int8"

    def wenet_is_light(self, choice: Choice) -> bool:
        """Tell whether WeNet, if it is there, can be made no lighter than it is."""
        kept_as = choose_weights(choice.wenet_weights, torch.device(choice.wenet_device))
        return not self.wenet or WENET_BYTES[kept_as] <= WENET_BYTES[WenetWeights(self.light_wenet)]

    def rows(self, choice: Choice) -> int:
        """Return how many sentences XTTS's cache then holds, as the decode engine reckons it."""
        if self.xtts is None:
            return 0
        row_bytes = self.xtts.row_bytes(choice.xtts_weights, gpu=self.gpu)
        return max(1, min(choice.xtts_batch, self.xtts_cache_bytes // row_bytes))

    def parts(self, choice: Choice) -> list[Part]:
        """Return all parts, in the order in which they are loaded."""
        return [*self.fixed, *self._xtts_parts(choice), *self._wenet_parts(choice)]

    def _xtts_parts(self, choice: Choice) -> list[Part]:
        if self.xtts is None:
            return []
        sizes, mode, gpu, rows = self.xtts, choice.xtts_weights, self.gpu, self.rows(choice)
        sentences = f"{rows} sentence{'s' if rows > 1 else ''} at once"
        return [
            Part(f"XTTS's layers in {mode}", self.place, sizes.gpt(mode, gpu=gpu)),
            Part("XTTS's encoders of voices", self.place, sizes.voices(gpu=gpu)),
            Part("XTTS's vocoder", self.place, sizes.vocoder_bytes(mode, gpu=gpu)),
            Part(f"XTTS's cache for {sentences}", self.place, sizes.cache(mode, rows, gpu=gpu)),
        ]

    def _wenet_parts(self, choice: Choice) -> list[Part]:
        device = torch.device(choice.wenet_device)
        parts = []
        for language, sizes in self.wenet.items():
            kept_as = choose_weights(choice.wenet_weights, device)
            taken = sizes.bytes_in(kept_as, gpu=device.type == "cuda", native=self.native)
            parts.append(Part(f"WeNet for {language} in {kept_as}", choice.wenet_device, taken))
        return parts


def _process() -> Part:
    """Return what this process will still take for itself: what it has taken is not among the free bytes."""
    return Part("Python and its packages", "cpu", Bytes(max(0, PROCESS_BYTES - resident_bytes())))


def _xtts(settings: Settings) -> XttsBytes | None:
    chosen = next(
        (each for each in (chosen_synthesizer(settings, one) for one in Language) if each.name == "xtts"), None
    )
    if chosen is None or missing(chosen.folder, XTTS_FILES, XTTS_PACKAGES):
        return None
    try:
        return XttsBytes.read(chosen.folder)
    except (ConfigurationError, ModelNotInstalled, KeyError, IndexError):
        return None


def _recognizer(settings: Settings, language: Language, place: torch.device) -> WenetBytes | Part | None:
    chosen = chosen_recognizer(settings, language)
    if chosen.name.startswith(OWN_PACKAGE):
        return _package(chosen.name.removeprefix(OWN_PACKAGE), settings, language, place)
    if chosen.name != "wenet" or missing(chosen.folder, WENET_FILES, WENET_PACKAGES):
        return None
    if not wenet_checkpoint.weights_path(chosen.folder).is_file():
        return Part(f"WeNet's runtime for {language}", "cpu", runtime_bytes(chosen.folder / "final.zip"))
    try:
        return WenetBytes.read(chosen.folder)
    except (ConfigurationError, KeyError, IndexError):
        return None


def _package(name: str, settings: Settings, language: Language, place: torch.device) -> Part:
    """Return what a model of WeNet's own package takes: as much as its files, and as much again while it loads."""
    folders = (Path(name).expanduser(), settings.models_dir / name, Path("~/.wenet").expanduser() / name)
    folder = next((each for each in folders if each.is_absolute() and each.is_dir()), None)
    files = [file for kind in PACKAGE_WEIGHTS for file in folder.glob(kind)] if folder else []
    size = sum(file.stat().st_size for file in files)
    note = "" if size else "its size is known once it has been downloaded"
    taken = Bytes(size, size) if place.type == "cpu" else Bytes(size)
    return Part(f"{OWN_PACKAGE}{name} for {language}", str(place), taken, note)
