"""The options of speech, each with its bounds, which settings, requests and the command line share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SPEED_BOUNDS = (0.25, 4.0)
# XTTS's sampling. Below 1 the penalty would reward repetition.
SAMPLING_BOUNDS: Mapping[str, tuple[float, float]] = {
    "temperature": (0.01, 2.0),
    "top_k": (0, 1000),
    "top_p": (0.01, 1.0),
    "repetition_penalty": (1.0, 20.0),
}
BOUNDS: Mapping[str, tuple[float, float]] = {**SAMPLING_BOUNDS, "speed": SPEED_BOUNDS}
WHOLE_NUMBERS = ("top_k",)


@dataclass(frozen=True)
class SpeechOptions:
    """How a text is spoken. None leaves an option to the settings, and there to the model.

    The first four are those of the sampling, as in coqui-tts: `top_k` 0 keeps every token. The speech becomes `speed`
    times as fast at the same pitch.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    speed: float | None = None

    def given(self) -> dict[str, Any]:
        """Return the options that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def over(self, defaults: "SpeechOptions") -> "SpeechOptions":
        """Return these options, and those of `defaults` where these are None."""
        return SpeechOptions(**{**asdict(defaults), **self.given()})


NO_OPTIONS = SpeechOptions()
