"""`mirrorchat hear` transcribes a recording."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirrorchat.cli.commands.options import (
    EnginePlace,
    json_option,
    language_option,
    place_options,
    read_recording,
    server_key,
    settings_of,
)

if TYPE_CHECKING:  # it imports numpy, which --help does not need
    from mirrorchat.engines import Language


@click.command()
@click.argument("file")
@language_option
@json_option
@place_options
def hear(file: str, language: "Language | None", as_json: bool, place: EnginePlace) -> None:
    """Transcribe FILE (- is standard input): wav, flac, mp3, ogg, webm, m4a, ...

    --json adds the length of the recording, and the times and confidence of each token if the engine knows them.
    """
    recording = read_recording(file)
    if place.server is not None:
        found = _recognized_on_server(place.server, place.key_file, recording, language, timed=as_json)
    else:
        found = _recognized_here(place.config, recording, language)
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else found["text"])


def _recognized_here(config: Path | None, recording: bytes, language: "Language | None") -> dict[str, Any]:
    settings = settings_of(config)
    from mirrorchat.cli.client.local_turn import loaded, recognize_here
    from mirrorchat.cli.client.terminal import Waiting
    from mirrorchat.engines import Language

    with loaded(settings, hearing=[language] if language else list(Language)) as engines, Waiting("recognizing"):
        transcript, duration_s = recognize_here(engines, recording, language)
    tokens = [
        {
            "text": token.text,
            "start": round(token.start_s, 3),
            "end": round(token.end_s, 3),
            "confidence": round(token.confidence, 4),
        }
        for token in transcript.tokens
    ]
    confidence = None if transcript.confidence is None else round(transcript.confidence, 4)
    return {
        "text": transcript.text,
        "language": str(transcript.language),
        "duration": round(duration_s, 3),
        "confidence": confidence,
        "tokens": tokens,
    }


def _recognized_on_server(
    server: str, key_file: Path | None, recording: bytes, language: "Language | None", *, timed: bool
) -> dict[str, Any]:
    from mirrorchat.cli.client.server_client import ServerClient
    from mirrorchat.cli.client.server_speech import recognize_on_server
    from mirrorchat.cli.client.terminal import Waiting

    with ServerClient(server, server_key(key_file)) as client, Waiting("recognizing"):
        return recognize_on_server(client, recording, language, timed=timed)
