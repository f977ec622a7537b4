"""The eSpeak NG worker process (`python -m mirrorchat.embedded.workers.espeak_worker`) turns text into speech.

eSpeak NG is a separate program under the GPL-3; the worker calls the shared library that espeakng-loader packs. Request
body: `voice NUL text`, UTF-8. Answer body: `HEADER` (sample rate in Hz, length of the phonemes in bytes), the phonemes
of the speech (eSpeak mnemonics, ASCII), then 16-bit little-endian mono samples.
"""

import ctypes
import os
import struct
from collections.abc import Callable

from mirrorchat.embedded.workers.serve import serve

HEADER = struct.Struct(">II")
_WORDS_PER_MINUTE = 160
_PERCENT_VOLUME = 70  # at 100, the default, klatt4 clips its loud vowels

# From eSpeak NG's speak_lib.h, 1.52.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_PHONEMES = 0x100  # [[...]] in the text is phonemes
_RATE, _VOLUME = 1, 2

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_PhonemeCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)


def load() -> Callable[[bytes], bytes]:
    """Load the library and its data; return the function that answers a request."""
    import espeakng_loader

    data = espeakng_loader.get_data_path()
    os.chdir(os.path.dirname(data))  # eSpeak truncates data paths at 160 characters, so the path is relative
    library = ctypes.CDLL(os.path.abspath(espeakng_loader.get_library_path()))
    rate_hz = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, b".", _DONT_EXIT)
    if rate_hz <= 0:
        raise RuntimeError("eSpeak NG cannot read its data")
    return lambda request: _speak(library, rate_hz, request)


def _speak(library: ctypes.CDLL, rate_hz: int, request: bytes) -> bytes:
    voice, text = request.split(b"\0", 1)
    sound: list[bytes] = []
    phonemes: list[bytes] = []

    def on_sound(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            sound.append(ctypes.string_at(samples, 2 * count))
        return 0

    def on_phonemes(mnemonics: bytes) -> int:
        phonemes.append(mnemonics)
        return 0

    callbacks = _SynthCallback(on_sound), _PhonemeCallback(on_phonemes)
    library.espeak_SetSynthCallback(callbacks[0])
    library.espeak_SetPhonemeCallback(callbacks[1])
    if library.espeak_SetVoiceByName(voice) != 0:
        raise ValueError("no such voice")
    library.espeak_SetParameter(_RATE, _WORDS_PER_MINUTE, 0)
    library.espeak_SetParameter(_VOLUME, _PERCENT_VOLUME, 0)
    if library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _CHARS_UTF8 | _PHONEMES, None, None) != 0:
        raise RuntimeError("eSpeak NG refused the text")
    library.espeak_Synchronize()
    mnemonics = b" ".join(phonemes)
    return HEADER.pack(rate_hz, len(mnemonics)) + mnemonics + b"".join(sound)


if __name__ == "__main__":
    serve(load)
