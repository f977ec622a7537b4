"""The options of speech in the fields of a request: each within its bounds, and named where it has no effect."""

from collections.abc import Collection, Mapping
from typing import Any

from mirrorchat.engines import Synthesizer
from mirrorchat.openai import fields
from mirrorchat.server.ignored import ignore
from mirrorchat.speech.options import BOUNDS, WHOLE_NUMBERS, SpeechOptions


def requested_options(given: Mapping[str, Any], synthesizers: Collection[Synthesizer]) -> SpeechOptions:
    """Return the options that the fields `given` hold. Raises InvalidField.

    Arguments:
        given: the fields of the request, of JSON or of a form.
        synthesizers: those that may speak. What one of them does not follow is named in `X-MirrorChat-Ignored`; the
            speed is changed after any synthesizer.
    """
    options = {name: _option(given, name) for name in BOUNDS if given.get(name) is not None}
    for name in options:
        if name != "speed" and not all(name in synthesizer.follows for synthesizer in synthesizers):
            ignore(name)
    return SpeechOptions(**options)


def _option(given: Mapping[str, Any], name: str) -> Any:
    low, high = BOUNDS[name]
    if name in WHOLE_NUMBERS:
        return fields.whole_number(given, name, int(low), int(high), 0)
    return fields.number(given, name, low, high, 1.0)
