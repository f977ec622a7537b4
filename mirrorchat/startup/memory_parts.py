"""The memory of the chosen engines on each device, part by part, for one choice of weights, batch and devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mirrorchat.asr import WenetWeights, choose_weights
from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.hardware import native
from mirrorchat.hardware.devices import gpu_weights
from mirrorchat.settings import Settings
from mirrorchat.startup.checkpoint_bytes import WENET_BYTES, WenetBytes, XttsBytes, runtime_bytes
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
from mirrorchat.startup.memory_small import Bytes, Part, hearing_parts, process_part, speaking_parts
from mirrorchat.wenet import checkpoint as wenet_checkpoint
from mirrorchat.xtts.linear import WeightMode

# The server's process, measured on two cores with random weights of the real size: 0.43 GB after the imports of torch
# and coqui-tts, 0.6 GB beyond the tensors after every kind of operation has run once.
PROCESS_BYTES = 600_000_000
# cuBLAS, cuDNN and the kernels, which are loaded at their first use. Not measured on a GPU. The context itself already
# exists when the free memory is read, and does not count as free.
CUDA_BYTES = 600_000_000
# cuBLAS keeps a workspace for each stream and thread: those of decoding, of its capture, of the vocoder, of voices, and
# of two recognizers. It has 8.1 MiB in a segment of 20 MiB; on GPUs of capability 9.0 it has 32 MiB.
WORKSPACES_BYTES = 6 * (32 << 20)
FRAGMENTATION = 0.05  # of what the allocator hands out, beside it; segments that can grow have little
PACKAGE_WEIGHTS = "*.pt", "*.safetensors", "*.bin"


@dataclass(frozen=True)
class Choice:
    """The settings that can be stepped down. With `wenet_weights` of `auto` the device decides."""

    xtts_weights: WeightMode
    xtts_batch: int
    wenet_weights: str
    wenet_device: str


@dataclass(frozen=True)
class Demand:
    """The sizes of the models that will be loaded. They are read once and serve any choice. `device` is XTTS's.

    `gpu_weights` are those that suit `device`, "" for the CPU.
    """

    device: str
    xtts: XttsBytes | None
    xtts_cache_bytes: int
    wenet: Mapping[Language, WenetBytes]
    fixed: Sequence[Part]
    native: bool
    gpu_weights: str

    @classmethod
    def of(cls, settings: Settings, device: torch.device) -> "Demand":
        """Read the sizes of the models that `settings` choose. A model that cannot be read is left out: its engine
        reports the reason.

        Raises ConfigurationError.
        """
        fixed, wenet = [process_part(PROCESS_BYTES)], {}
        if device.type == "cuda":
            fixed.append(Part("CUDA's libraries", str(device), Bytes(CUDA_BYTES + WORKSPACES_BYTES)))
        fixed += [*hearing_parts(settings), *speaking_parts(settings)]
        for language in Language:
            found = _recognizer(settings, language, device)
            if isinstance(found, WenetBytes):
                wenet[language] = found
            elif found is not None:
                fixed.append(found)
        in_library = native.library() is not None
        suited = gpu_weights(device) if device.type == "cuda" else ""
        return cls(str(device), _xtts(settings), settings.xtts_cache_mb * 1_000_000, wenet, fixed, in_library, suited)

    @property
    def gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def light_weights(self) -> str:
        """Return the weights that take the least memory on the device."""
        return self.gpu_weights or "int8"

    def wenet_weights(self, choice: Choice) -> WenetWeights:
        """Return the weights that WeNet will have."""
        if choice.wenet_weights == "auto" and choice.wenet_device == self.device and self.gpu:
            return WenetWeights(self.gpu_weights)
        return choose_weights(choice.wenet_weights, torch.device(choice.wenet_device))

    def wenet_is_light(self, choice: Choice) -> bool:
        """Return whether no other weights of WeNet take less memory."""
        light = WENET_BYTES[WenetWeights(self.light_weights)]
        return not self.wenet or WENET_BYTES[self.wenet_weights(choice)] <= light

    def slots(self, choice: Choice) -> int:
        """Return the number of slots in XTTS's KV cache, computed as in the decode engine."""
        if self.xtts is None:
            return 0
        slot_bytes = self.xtts.slot_bytes(choice.xtts_weights, gpu=self.gpu)
        return max(1, min(choice.xtts_batch, self.xtts_cache_bytes // slot_bytes))

    def parts(self, choice: Choice) -> list[Part]:
        """Return all parts in the order of loading."""
        models = [*self._xtts_parts(choice), *self._wenet_parts(choice)]
        taken = sum(part.bytes.kept + part.bytes.work for part in models if part.device != "cpu")
        lost = [Part("gaps between tensors", self.device, Bytes(round(FRAGMENTATION * taken)))] if taken else []
        return [*self.fixed, *models, *lost]

    def _xtts_parts(self, choice: Choice) -> list[Part]:
        if self.xtts is None:
            return []
        sizes, mode, gpu, slots = self.xtts, choice.xtts_weights, self.gpu, self.slots(choice)
        sentences = f"{slots} sentence{'s' if slots > 1 else ''} at once"
        return [
            Part(f"XTTS's layers in {mode}", self.device, sizes.gpt(mode, gpu=gpu)),
            Part("XTTS's voice encoders", self.device, sizes.voices(gpu=gpu), stream="voices"),
            Part("XTTS's vocoder", self.device, sizes.vocoder_bytes(mode, gpu=gpu), stream="vocoder"),
            Part(f"XTTS's cache for {sentences}", self.device, sizes.cache(mode, slots, gpu=gpu), stream="decoding"),
            *([Part("XTTS's CUDA graphs", self.device, sizes.graphs(slots))] if gpu else []),
        ]

    def _wenet_parts(self, choice: Choice) -> list[Part]:
        device = torch.device(choice.wenet_device)
        parts = []
        for language, sizes in self.wenet.items():
            kept_as = self.wenet_weights(choice)
            taken = sizes.bytes_in(kept_as, gpu=device.type == "cuda", native=self.native)
            parts.append(Part(f"WeNet for {language} in {kept_as}", choice.wenet_device, taken))
        return parts


def _xtts(settings: Settings) -> XttsBytes | None:
    folders = {each.folder for each in (chosen_synthesizer(settings, one) for one in Language) if each.name == "xtts"}
    folder = next(iter(folders), None)
    if folder is None or missing(folder, XTTS_FILES, XTTS_PACKAGES):
        return None
    try:
        return XttsBytes.read(folder)
    except (ConfigurationError, ModelNotInstalled, KeyError, IndexError):
        return None


def _recognizer(settings: Settings, language: Language, device: torch.device) -> WenetBytes | Part | None:
    chosen = chosen_recognizer(settings, language)
    if chosen.name.startswith(OWN_PACKAGE):
        return _package(chosen.name.removeprefix(OWN_PACKAGE), settings, language, device)
    if chosen.name != "wenet" or missing(chosen.folder, WENET_FILES, WENET_PACKAGES):
        return None
    if not wenet_checkpoint.weights_path(chosen.folder).is_file():
        return Part(f"WeNet's runtime for {language}", "cpu", runtime_bytes(chosen.folder / "final.zip"))
    try:
        return WenetBytes.read(chosen.folder)
    except (ConfigurationError, KeyError, IndexError):
        return None


def _package(name: str, settings: Settings, language: Language, device: torch.device) -> Part:
    """Return the memory of a model of WeNet's own package: the size of its files, on the CPU twice during loading."""
    folders = (Path(name).expanduser(), settings.models_dir / name, Path("~/.wenet").expanduser() / name)
    folder = next((each for each in folders if each.is_absolute() and each.is_dir()), None)
    files = [file for kind in PACKAGE_WEIGHTS for file in folder.glob(kind)] if folder else []
    size = sum(file.stat().st_size for file in files)
    note = "" if size else "its size is known once it has been downloaded"
    taken = Bytes(size, size) if device.type == "cpu" else Bytes(size)
    return Part(f"{OWN_PACKAGE}{name} for {language}", str(device), taken, note)
