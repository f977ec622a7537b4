"""`mirrorchat say`: a written text, spoken in the voice of a recording."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mirrorchat.cli.commands.options import (
    LANGUAGES,
    STDIN,
    chosen_player,
    json_option,
    place_options,
    read_recording,
    say_aside,
    server_key,
    settings_of,
    sound_options,
    unicode_text,
)
from mirrorchat.errors import CommandError

if TYPE_CHECKING:  # they import numpy, which --help does without
    from mirrorchat.audio.samples import Audio
    from mirrorchat.engines import Language, Voice

    Speech = tuple[Voice, Iterator[Audio]]

TEXT_LIMIT_CHARS = 20_000  # about twenty minutes of speech


@click.command()
@click.argument("text", callback=unicode_text)
@click.option("--voice", metavar="FILE", help="Speak as who speaks in this recording. Default: a neutral voice.")
@click.option("--language", type=LANGUAGES, help="What TEXT is in. Default: Chinese where it has Chinese characters.")
@sound_options
@json_option
@place_options
def say(
    text: str,
    voice: str | None,
    language: str | None,
    out: str | None,
    play: bool | None,
    player: str | None,
    as_json: bool,
    server: str | None,
    key_file: Path | None,
    config: Path | None,
) -> None:
    """Speak TEXT (- reads it from standard input). The speech is played at a terminal, or saved with --out.

    Speak in someone else's voice only with their consent.
    """
    if text == STDIN and voice == STDIN:
        raise click.UsageError("only one of TEXT and --voice can be read from standard input")
    if as_json and out == STDIN:
        raise click.UsageError("--json and --out - both want standard output")
    from mirrorchat.cli.client.sound_outputs import chosen_outputs
    from mirrorchat.engines import Language

    program = _player(out, play, player)
    words = _words(text)
    spoken_in = Language.parse(language or ("chinese" if re.search(r"[\u3400-\u9fff]", words) else "english"))
    recording = None if voice is None else read_recording(voice)
    begun = time.monotonic()
    with closing(chosen_outputs(out, program)) as outputs:
        first_s: float | None = None
        with _speech(server, key_file, config, words, recording, spoken_in) as (used, pieces):
            for piece in pieces:
                first_s = first_s or time.monotonic() - begun
                outputs.add(piece)
        outputs.finish()
    if first_s is None:
        raise CommandError("the text holds nothing that can be spoken")
    _report(used, first_s, outputs.duration_s, as_json=as_json)


def _player(out: str | None, play: bool | None, player: str | None) -> str | None:
    """Return what plays the speech, None where it is only saved. Raises UsageError where it goes nowhere."""
    from mirrorchat.cli.client.sound_devices import require_player

    program = chosen_player(out, play, player)
    if program is None and out is None:
        if play is False or not sys.stdout.isatty():
            raise click.UsageError(
                "where should the speech go? --out FILE saves it, --out - writes a wav, --play plays"
            )
        require_player()
    return program


def _report(voice: "Voice", first_s: float, audio_s: float, *, as_json: bool) -> None:
    """Say in which voice the speech was, how much of it there is, and when the first of it was there."""
    if as_json:
        known = {"kind": str(voice.kind), "reason": voice.reason}
        facts = {"voice": known, "first_audio_s": round(first_s, 4), "audio_s": round(audio_s, 3)}
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        say_aside(f"voice: {voice.kind}, {voice.reason}; {audio_s:.1f} s of speech, the first after {first_s:.2f} s")


def _words(text: str) -> str:
    """Return what shall be said. Raises CommandError for too much of it, or what is no text."""
    if text == STDIN:
        try:
            text = sys.stdin.buffer.read(4 * TEXT_LIMIT_CHARS + 4).decode()
        except UnicodeDecodeError:
            raise CommandError("standard input is not UTF-8, or too long") from None
    if len(text) > TEXT_LIMIT_CHARS:
        raise CommandError(f"the text is longer than {TEXT_LIMIT_CHARS} characters")
    return text


@contextmanager
def _speech(
    server: str | None, key_file: Path | None, config: Path | None, text: str, voice: bytes | None, language: "Language"
) -> "Iterator[Speech]":
    """Yield the voice, and the speech as it comes."""
    from mirrorchat.cli.client.terminal import Waiting

    if server is not None:
        from mirrorchat.cli.client.server_client import ServerClient
        from mirrorchat.cli.client.server_speech import speech_there

        with (
            Waiting("waiting for the speech") as waiting,
            ServerClient(server, server_key(key_file)) as client,
            speech_there(client, text, voice, language) as speech,
        ):
            waiting.stop()
            yield speech
        return
    settings = settings_of(config)
    from mirrorchat.cli.client.local_turn import loaded, say_here, voice_here

    with loaded(settings, speaking=[language]) as engines:
        with Waiting("computing the voice"):
            used = voice_here(engines, voice, language)
        yield used, say_here(settings, engines, text, used, language)
