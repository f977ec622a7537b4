"""`mirrorchat say` speaks a text in the voice of a recording."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from mirrorchat.chat.reasoning import without_reasoning
from mirrorchat.cli.client.sound_programs import require_player
from mirrorchat.cli.commands.options import (
    LANGUAGE,
    STDIN,
    EnginePlace,
    SoundOptions,
    check_standard_output,
    chosen_player,
    json_option,
    note,
    place_options,
    read_recording,
    server_key,
    settings_of,
    sound_options,
    speech_options,
    unicode_text,
)
from mirrorchat.errors import CommandError
from mirrorchat.speech.options import SpeechOptions

if TYPE_CHECKING:  # these import numpy, which --help does not need
    from mirrorchat.audio.samples import Audio
    from mirrorchat.engines import Language, Voice

    Speech = tuple[Voice, Iterator[Audio]]

TEXT_LIMIT_CHARS = 20_000  # about twenty minutes of speech
NO_WORDS = "the text has no words to speak"


_TEXT_WITH_MINUS = re.compile(r"-{1,3}[^-a-zA-Z]")  # "-3°C" or "- milk": no option begins so


@dataclass(frozen=True)
class VoiceSource:
    """What names the voice: a `recording`, or a `speaker` of the model or the server; a neutral one without both."""

    recording: bytes | None
    speaker: str | None


class TextCommand(click.Command):
    """Takes an argument such as "-3°C" for the text, where click would look for an option "-3"."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        texts = [] if "--" in args else [argument for argument in args if _TEXT_WITH_MINUS.match(argument)]
        options = [argument for argument in args if argument not in texts]
        return super().parse_args(ctx, [*options, "--", *texts] if texts else args)


@click.command(cls=TextCommand)
@click.argument("text", callback=unicode_text)
@click.option("--voice", metavar="FILE", help="Speak in the voice of this recording. Default: a neutral voice.")
@click.option("--speaker", metavar="NAME", callback=unicode_text, help="Speak in a voice of the model or the server.")
@click.option("--language", help="The language of TEXT. Default: Chinese if it has Chinese characters.", **LANGUAGE)
@click.option("--dry-run", is_flag=True, help="Print the words that would be spoken, a line a sentence; no sound.")
@speech_options
@sound_options
@json_option
@place_options
def say(
    text: str,
    voice: str | None,
    speaker: str | None,
    language: "Language | None",
    dry_run: bool,
    spoken: SpeechOptions,
    sound: SoundOptions,
    as_json: bool,
    place: EnginePlace,
) -> None:
    """Speak TEXT (- reads it from standard input). The speech is played at a terminal, or saved with --out.

    Speak in someone else's voice only with their consent.
    """
    if text == STDIN and voice == STDIN:
        raise click.UsageError("only one of TEXT and --voice can be read from standard input")
    if voice is not None and speaker is not None:
        raise click.UsageError("give either --voice or --speaker")
    check_standard_output(sound, as_json=as_json)
    if dry_run:
        words = _words(text)
        _print_sentences(words, language or _language_of(words), as_json=as_json)
        return
    from mirrorchat.cli.client.sound_outputs import chosen_outputs

    program = _player(sound)
    words = _words(text)
    spoken_in = language or _language_of(words)
    recording = None if voice is None else read_recording(voice)
    begun = time.monotonic()
    with closing(chosen_outputs(sound.out, program)) as outputs:
        first_s: float | None = None
        with _speech(place, words, VoiceSource(recording, speaker), spoken_in, spoken) as (used, pieces):
            for piece in pieces:
                first_s = first_s or time.monotonic() - begun
                outputs.add(piece)
        outputs.finish()
    if first_s is None:
        raise CommandError(NO_WORDS)
    _report(used, first_s, outputs.duration_s, as_json=as_json)


def _print_sentences(text: str, language: "Language", *, as_json: bool) -> None:
    """Print each sentence of `text` as the synthesizer gets it: split as an answer is, and in spoken form.

    The output is UTF-8 in every locale, so that a pipe can rely on it. Raises CommandError when there is no word.
    """
    from mirrorchat.text.normalization.normalize import normalize_text
    from mirrorchat.text.splitter import SentenceSplitter

    splitter = SentenceSplitter(language)
    written = [*splitter.feed(text), *splitter.flush()]
    sentences = [" ".join(normalize_text(sentence, language).split()) for sentence in written]
    if not sentences:
        raise CommandError(NO_WORDS)
    if as_json:
        lines = [json.dumps({"language": str(language), "sentences": sentences}, ensure_ascii=False)]
    else:
        lines = sentences
    for line in lines:
        click.echo(line.encode())


def _language_of(text: str) -> "Language":
    """Return Chinese if `text` has a Chinese character, else English."""
    from mirrorchat.engines import Language

    return Language.CHINESE if re.search(r"[\u3400-\u9fff]", text) else Language.ENGLISH


def _player(sound: SoundOptions) -> str | None:
    """Return the program that plays the speech, or None if it is saved. Raises UsageError when there is no output."""
    program = chosen_player(sound)
    if program is None and sound.out is None:
        if sound.play is False or not sys.stdout.isatty():
            raise click.UsageError(
                "choose an output: --out FILE saves the speech, --out - writes a wav, --play plays it"
            )
        require_player()
    return program


def _report(voice: "Voice", first_s: float, audio_s: float, *, as_json: bool) -> None:
    """Print the voice, the length of the speech, and the time of its first sample."""
    if as_json:
        known = {"kind": str(voice.kind), "reason": voice.reason}
        metadata = {"voice": known, "first_audio_s": round(first_s, 4), "audio_s": round(audio_s, 3)}
        click.echo(json.dumps(metadata, ensure_ascii=False))
    else:
        note(f"voice: {voice.kind}, {voice.reason}; {audio_s:.1f} s of speech, the first after {first_s:.2f} s")


def _words(text: str) -> str:
    """Return the text to speak, without a model's reasoning. Raises CommandError when it is too long or not UTF-8."""
    if text == STDIN:
        if sys.stdin is None:  # the parent process closed it
            raise CommandError("there is no standard input")
        try:
            text = sys.stdin.buffer.read(4 * TEXT_LIMIT_CHARS + 4).decode()
        except UnicodeDecodeError:
            raise CommandError("standard input is not UTF-8, or too long") from None
    if len(text) > TEXT_LIMIT_CHARS:
        raise CommandError(f"the text is longer than {TEXT_LIMIT_CHARS} characters")
    return without_reasoning(text)


@contextmanager
def _speech(
    place: EnginePlace, text: str, source: VoiceSource, language: "Language", options: SpeechOptions
) -> "Iterator[Speech]":
    """Yield the voice, and the speech while it arrives."""
    from mirrorchat.cli.client.terminal import Waiting

    if place.server is not None:
        from mirrorchat.cli.client.server_client import ServerClient
        from mirrorchat.cli.client.server_speech import speech_from_server

        with (
            Waiting("waiting for the speech") as waiting,
            ServerClient(place.server, server_key(place.key_file)) as client,
            speech_from_server(
                client, text, source.recording, language, speaker=source.speaker, options=options
            ) as speech,
        ):
            waiting.stop()
            yield speech
        return
    settings = settings_of(place.config)
    from mirrorchat.cli.client.local_turn import loaded, speak_here, voice_here

    with loaded(settings, speaking=[language]) as engines:
        with Waiting("computing the voice"):
            used = voice_here(engines, source.recording, language, speaker=source.speaker)
        yield used, speak_here(settings, engines, text, used, language, options)
