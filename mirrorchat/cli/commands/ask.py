"""`mirrorchat ask` asks a question from a file or the microphone, and plays or saves the answer."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from mirrorchat.cli.commands.options import (
    LANGUAGE,
    STDOUT,
    EnginePlace,
    SoundOptions,
    check_standard_output,
    chosen_player,
    json_option,
    language_option,
    note,
    place_options,
    read_recording,
    server_key,
    settings_of,
    sound_options,
    speech_options,
    unicode_text,
)
from mirrorchat.settings import QUESTION_LIMIT_MAX_S
from mirrorchat.speech.options import SpeechOptions

if TYPE_CHECKING:  # these import numpy, which --help does not need
    from mirrorchat.cli.client.turn import TurnEvent, TurnRequest
    from mirrorchat.engines import Language

    Asker = Callable[[TurnRequest], Generator[TurnEvent]]


@click.command()
@click.argument("file", required=False)
@click.option("--mic", is_flag=True, help="Record the question until Enter, a pause, or --seconds.")
@click.option(
    "--seconds", type=click.FloatRange(0, QUESTION_LIMIT_MAX_S, min_open=True), default=QUESTION_LIMIT_MAX_S,
    show_default=True, help="With --mic: the time limit of the recording.",
)  # fmt: skip
@language_option
@click.option("--reply-language", help="Answer in this language.", **LANGUAGE)
@click.option(
    "--text",
    callback=unicode_text,
    help="The transcript of the recording. Recognition is skipped; the recording gives the voice.",
)
@click.option(
    "--hotwords", default="", callback=unicode_text, help="Words that WeNet should favour, separated by commas."
)
@click.option("--session", metavar="ID", help="With --server: continue the session of an earlier answer.")
@speech_options
@sound_options
@json_option
@place_options
def ask(
    file: str | None,
    mic: bool,
    seconds: float,
    language: "Language | None",
    reply_language: "Language | None",
    text: str | None,
    hotwords: str,
    session: str | None,
    spoken: SpeechOptions,
    sound: SoundOptions,
    as_json: bool,
    place: EnginePlace,
) -> None:
    """Ask the question in FILE (- is standard input), or in a recording with --mic.

    The reply is printed to standard output. At a terminal it is also played, and the transcript and the time of each
    stage are shown.
    """
    if (file is None) != mic:
        raise click.UsageError("give either a FILE (or -) or --mic")
    if session is not None and place.server is None:
        raise click.UsageError("--session needs --server, which keeps the sessions")
    check_standard_output(sound, as_json=as_json)
    from mirrorchat.cli.client.sound_outputs import chosen_outputs
    from mirrorchat.cli.client.turn import TurnReport, TurnRequest

    program = _player_to_use(sound)
    reply_in = reply_language or language
    question = _question(file, seconds)
    with (
        closing(chosen_outputs(sound.out, program)) as outputs,
        _asker(place, language, reply_in, recognizes=not text) as ask_question,
    ):
        report = TurnReport(outputs, as_json=as_json, text_aside=sound.out == STDOUT)
        request = TurnRequest(question(), language, reply_in, text or None, hotwords, session, spoken)
        with closing(ask_question(request)) as turn:
            report.follow(turn)


def _player_to_use(sound: SoundOptions) -> str | None:
    program = chosen_player(sound)
    if program is None and sound.out is None and sound.play is None and sys.stdout.isatty():
        note(
            "no program for playing is installed: install ffmpeg, mpv or alsa-utils, or save the answer with --out FILE"
        )
    return program


@contextmanager
def _asker(
    place: EnginePlace, language: "Language | None", reply_in: "Language | None", *, recognizes: bool
) -> "Iterator[Asker]":
    """Yield a function that asks a question. The engines are loaded first, before the caller speaks."""
    if place.server is not None:
        from mirrorchat.cli.client.server_client import ServerClient
        from mirrorchat.cli.client.server_turn import ask_server

        with ServerClient(place.server, server_key(place.key_file)) as client:
            yield partial(ask_server, client)
    else:
        settings = settings_of(place.config)
        from mirrorchat.cli.client.local_turn import ask_here, loaded
        from mirrorchat.engines import Language

        heard, spoken = ([each] if each else list(Language) for each in (language, reply_in))
        with loaded(settings, hearing=heard if recognizes else [], speaking=spoken) as engines:
            yield partial(ask_here, settings, engines)


def _question(file: str | None, seconds: float) -> "Callable[[], bytes]":
    """Return a function that gives the recording: of the file, which is read now, or of the microphone."""
    if file is not None:
        recording = read_recording(file)
        return lambda: recording
    from mirrorchat.audio.encoders import encode_wav
    from mirrorchat.cli.client.microphone import record
    from mirrorchat.cli.client.sound_programs import find_recorder

    recorder = find_recorder()
    return lambda: encode_wav(record(recorder, seconds, note))
