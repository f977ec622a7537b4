"""The command line `mirrorchat COMMAND`. It imports the module of a command only when the command runs."""

import errno
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

import click

from mirrorchat import __version__
from mirrorchat.errors import MirrorChatError

# The module and function of each command, and its summary. A command whose module is missing is not offered.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("mirrorchat.cli.commands.serve:serve", "Run the server."),
    "ask": ("mirrorchat.cli.commands.ask:ask", "Ask a spoken question and hear the answer."),
    "say": ("mirrorchat.cli.commands.say:say", "Speak a text in the voice of a recording."),
    "hear": ("mirrorchat.cli.commands.hear:hear", "Transcribe a recording."),
    "models": ("mirrorchat.cli.commands.models:models", "Install, verify and remove models."),
    "key": ("mirrorchat.cli.commands.key:key", "Make a key for api_keys."),
    "doctor": ("mirrorchat.cli.commands.doctor:doctor", "Find problems of this installation, and their remedies."),
    "evaluate": ("mirrorchat.cli.commands.evaluate:evaluate", "Measure recognition and speech with recordings."),
    "completion": ("mirrorchat.cli.commands.completion:completion", "Print the completion script of a shell."),
}

INTERRUPTED_STATUS = 130  # the convention of shells: 128 plus the number of SIGINT


class CommandFailed(click.ClickException):
    """An error that is printed as one line on stderr. The exit status is 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"mirrorchat: {self.format_message()}", file=file or sys.stderr)


class LazyGroup(click.Group):
    """Imports a command when it is needed, and prints errors as lines instead of tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (target, _) in COMMANDS.items() if importlib.util.find_spec(target.partition(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MirrorChatError as error:
            raise CommandFailed(" ".join(str(error).split())) from error
        except OSError as error:  # of standard output, such as a full disk; click handles a closed pipe
            if error.errno == errno.EPIPE:
                raise
            raise CommandFailed(str(error)) from error
        except (KeyboardInterrupt, click.Abort):  # Ctrl-C at a prompt raises Abort
            click.echo("\nmirrorchat: interrupted", err=True)
            ctx.exit(INTERRUPTED_STATUS)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mirrorchat")
def cli() -> None:
    """MirrorChat answers a spoken question in the voice of its speaker."""


def main() -> None:
    """Run the command line and exit with 0 for success, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        cli.main(prog_name="mirrorchat")
    except SystemExit as end:
        if end.code == INTERRUPTED_STATUS:  # everything is closed; a normal exit would wait for threads in native code
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(INTERRUPTED_STATUS)
        raise
