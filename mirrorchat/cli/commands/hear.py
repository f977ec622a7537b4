"""`mirrorchat hear`: what is said in a recording, written down."""

import json
from pathlib import Path
from typing import Any

import click

from mirrorchat.cli.commands.options import (
    LANGUAGE_VARIABLE,
    LANGUAGES,
    default_language,
    json_option,
    place_options,
    read_recording,
    server_key,
    settings_of,
)


@click.command()
@click.argument("file")
@click.option(
    "--language", type=LANGUAGES, envvar=LANGUAGE_VARIABLE, default=default_language,
    help=f"What is spoken (or {LANGUAGE_VARIABLE}). Default: that of LANG.",
)  # fmt: skip
@json_option
@place_options
def hear(
    file: str, language: str, as_json: bool, server: str | None, key_file: Path | None, config: Path | None
) -> None:
    """Write down what is said in FILE (- is standard input): wav, flac, mp3, ogg, webm, m4a, ...

    With --json there is more: the length, and when each word or unit was said and how sure that is, where the engine
    knows it.
    """
    recording = read_recording(file)
    if server is not None:
        found = _heard_there(server, key_file, recording, language, timed=as_json)
    else:
        found = _heard_here(config, recording, language)
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else found["text"])


def _heard_here(config: Path | None, recording: bytes, language: str) -> dict[str, Any]:
    settings = settings_of(config)
    from mirrorchat.cli.client.local_turn import hear_here, loaded
    from mirrorchat.cli.client.terminal import Waiting
    from mirrorchat.engines import Language

    spoken_in = Language.parse(language)
    with loaded(settings, hearing=[spoken_in]) as engines, Waiting("listening"):
        heard, duration_s = hear_here(engines, recording, spoken_in)
    tokens = [
        {
            "text": token.text,
            "start": round(token.start_s, 3),
            "end": round(token.end_s, 3),
            "confidence": round(token.confidence, 4),
        }
        for token in heard.tokens
    ]
    confidence = None if heard.confidence is None else round(heard.confidence, 4)
    return {
        "text": heard.text,
        "language": str(heard.language),
        "duration": round(duration_s, 3),
        "confidence": confidence,
        "tokens": tokens,
    }


def _heard_there(server: str, key_file: Path | None, recording: bytes, language: str, *, timed: bool) -> dict[str, Any]:
    from mirrorchat.cli.client.server_client import ServerClient
    from mirrorchat.cli.client.server_speech import hear_there
    from mirrorchat.cli.client.terminal import Waiting
    from mirrorchat.engines import Language

    with ServerClient(server, server_key(key_file)) as client, Waiting("listening"):
        return hear_there(client, recording, Language.parse(language), timed=timed)
