"""The memory of the small models, which run on the CPU without torch: so this imports no torch, either."""

from dataclasses import dataclass

from mirrorchat.engines import Language
from mirrorchat.hardware.host_memory import resident_bytes
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import chosen_recognizer, chosen_synthesizer, detector_folder, missing_kokoro

# The server's process without torch, and what each model adds to it, resident, after it has heard or spoken. Measured
# on two cores.
PROCESS_BYTES = 120_000_000
WHISPER_BYTES, HIBARI_BYTES, KOKORO_BYTES = 185_000_000, 235_000_000, 530_000_000


@dataclass(frozen=True)
class Bytes:
    """The memory of one part: `kept` while it is loaded, `loading` and `work` more while it loads and computes."""

    kept: int
    loading: int = 0
    work: int = 0


@dataclass(frozen=True)
class Part:
    """A part of a model on the device named `device`. `note` says what the numbers leave out.

    On a GPU it computes on the CUDA stream named `stream`. Memory that one stream has used is kept for it.
    """

    name: str
    device: str
    bytes: Bytes
    note: str = ""
    stream: str = "default"


def process_part(process_bytes: int = PROCESS_BYTES) -> Part:
    """Return the memory that this process will still take. Its resident memory does not count as free already."""
    return Part("Python and its packages", "cpu", Bytes(max(0, process_bytes - resident_bytes())))


def hearing_parts(settings: Settings) -> list[Part]:
    """Return Whisper if it will recognize or detect a language."""
    hears = any(chosen_recognizer(settings, language).name == "small" for language in Language)
    return [Part("Whisper base", "cpu", Bytes(WHISPER_BYTES))] if hears or detector_folder(settings) else []


def speaking_parts(settings: Settings) -> list[Part]:
    """Return hibari if it will speak, and Kokoro where it is installed beside it."""
    chosen = [chosen_synthesizer(settings, language) for language in Language]
    folder = next((each.folder for each in chosen if each.name == "small"), None)
    if folder is None:
        return []
    kokoro = [] if missing_kokoro(folder) else [Part("Kokoro", "cpu", Bytes(KOKORO_BYTES))]
    return [Part("hibari", "cpu", Bytes(HIBARI_BYTES)), *kokoro]
