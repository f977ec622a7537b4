"""`mirrorchat ask`: a spoken question from a file or the microphone, and its answer, heard or saved."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mirrorchat.cli.commands.options import (
    LANGUAGE_VARIABLE,
    LANGUAGES,
    STDIN,
    chosen_player,
    default_language,
    json_option,
    place_options,
    read_recording,
    say_aside,
    server_key,
    settings_of,
    sound_options,
    unicode_text,
)

if TYPE_CHECKING:  # they import numpy, which --help does without
    from mirrorchat.cli.client.asked import AnswerEvent, Asked
    from mirrorchat.engines import Language

    Answerer = Callable[[Asked], Generator[AnswerEvent]]

LONGEST_QUESTION_S = 60.0


@dataclass(frozen=True)
class _Place:
    """Where a question is answered: by the server at `server`, else here, as `config` says."""

    server: str | None
    key_file: Path | None
    config: Path | None


@click.command()
@click.argument("file", required=False)
@click.option("--mic", is_flag=True, help="Record the question: until Enter, silence, or --seconds.")
@click.option(
    "--seconds", type=click.FloatRange(0.3, LONGEST_QUESTION_S), default=LONGEST_QUESTION_S, show_default=True,
    help="With --mic: record no longer than this.",
)  # fmt: skip
@click.option(
    "--language", type=LANGUAGES, envvar=LANGUAGE_VARIABLE, default=default_language,
    help=f"What the question is in (or {LANGUAGE_VARIABLE}). Default: that of LANG.",
)  # fmt: skip
@click.option("--reply-language", type=LANGUAGES, help="Answer in this language.")
@click.option(
    "--text",
    callback=unicode_text,
    help="What was said: recognition is skipped, the voice is the recording's all the same.",
)
@click.option(
    "--hotwords", default="", callback=unicode_text, help="Words that WeNet should be readier to hear, between commas."
)
@click.option("--session", metavar="ID", help="With --server: go on from an earlier answer's session.")
@sound_options
@json_option
@place_options
def ask(
    file: str | None,
    mic: bool,
    seconds: float,
    language: str,
    reply_language: str | None,
    text: str | None,
    hotwords: str,
    session: str | None,
    out: str | None,
    play: bool | None,
    player: str | None,
    as_json: bool,
    server: str | None,
    key_file: Path | None,
    config: Path | None,
) -> None:
    """Ask the question in FILE (- is standard input), or aloud with --mic.

    Standard output gets the reply; at a terminal it is spoken, too, and what was heard and how long each stage took
    are shown.
    """
    if (file is None) != mic:
        raise click.UsageError("give a FILE (or -) or --mic, one of the two")
    _refuse_contradictions(session, server, out, as_json)
    from mirrorchat.cli.client.answer_report import AnswerReport
    from mirrorchat.cli.client.asked import Asked
    from mirrorchat.cli.client.sound_outputs import chosen_outputs
    from mirrorchat.engines import Language

    program = _player_to_use(out, play, player)
    spoken_in, reply_in = Language.parse(language), Language.parse(reply_language or language)
    question = _question(file, seconds)
    with (
        closing(chosen_outputs(out, program)) as outputs,
        _answerer(_Place(server, key_file, config), spoken_in, reply_in, hears=not text) as answer,
    ):
        report = AnswerReport(outputs, as_json=as_json, text_aside=out == STDIN)
        with closing(answer(Asked(question(), spoken_in, reply_in, text or None, hotwords, session))) as turn:
            report.follow(turn)


def _refuse_contradictions(session: str | None, server: str | None, out: str | None, as_json: bool) -> None:
    if session is not None and server is None:
        raise click.UsageError("--session goes with --server: sessions are kept there")
    if as_json and out == STDIN:
        raise click.UsageError("--json and --out - both want standard output")


def _player_to_use(out: str | None, play: bool | None, player: str | None) -> str | None:
    program = chosen_player(out, play, player)
    if program is None and out is None and play is None and sys.stdout.isatty():
        say_aside("nothing here plays sound: install ffmpeg, mpv or alsa-utils, or save it with --out FILE")
    return program


@contextmanager
def _answerer(place: _Place, asked_in: "Language", reply_in: "Language", *, hears: bool) -> "Iterator[Answerer]":
    """Yield what answers a question, once it is ready to: the engines are loaded before the caller speaks."""
    if place.server is not None:
        from mirrorchat.cli.client.server_client import ServerClient
        from mirrorchat.cli.client.server_events import ask_server

        with ServerClient(place.server, server_key(place.key_file)) as client:
            yield partial(ask_server, client)
    else:
        settings = settings_of(place.config)
        from mirrorchat.cli.client.local_turn import ask_here, loaded

        with loaded(settings, hearing=[asked_in] if hears else [], speaking=[reply_in]) as engines:
            yield partial(ask_here, settings, engines)


def _question(file: str | None, seconds: float) -> "Callable[[], bytes]":
    """Return what gives the question: the file, read now, or the microphone, when the engines are loaded."""
    if file is not None:
        recording = read_recording(file)
        return lambda: recording
    from mirrorchat.audio.encoders import encode_wav
    from mirrorchat.cli.client.microphone import record
    from mirrorchat.cli.client.sound_devices import find_recorder

    recorder = find_recorder()
    return lambda: encode_wav(record(recorder, seconds, say_aside))
