"""The command line: `mirrorchat COMMAND`. Each command's module is imported when it is called, not before."""

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

# name: its module and function, and what it does (shown without importing it). One whose module is absent is not there.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("mirrorchat.cli.commands.serve:serve", "Run the server."),
    "ask": ("mirrorchat.cli.commands.ask:ask", "Ask a spoken question, and hear the answer."),
    "say": ("mirrorchat.cli.commands.say:say", "Speak a text in the voice of a recording."),
    "hear": ("mirrorchat.cli.commands.hear:hear", "Write down what is said in a recording."),
    "models": ("mirrorchat.cli.commands.models:models", "Install, verify and remove the models of the real engines."),
    "key": ("mirrorchat.cli.commands.key:key", "Make a key for api_keys."),
    "doctor": (
        "mirrorchat.cli.commands.doctor:doctor",
        "Look for what keeps MirrorChat from working, and say what to do.",
    ),
    "evaluate": ("mirrorchat.cli.commands.evaluate:evaluate", "Measure recognition and speech over recordings."),
    "completion": (
        "mirrorchat.cli.commands.completion:completion",
        "Print the script that completes commands in a shell.",
    ),
}

INTERRUPTED_STATUS = 130  # as shells say it: 128 and the number of SIGINT


class CommandFailed(click.ClickException):
    """An error of the tree, as one line on stderr; the exit status is 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"mirrorchat: {self.format_message()}", file=file or sys.stderr)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed, and whose errors are lines, not tracebacks."""

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
        except OSError as error:  # of standard output, such as a full disk; who no longer listens is click's to notice
            if error.errno == errno.EPIPE:
                raise
            raise CommandFailed(str(error)) from error
        except (KeyboardInterrupt, click.Abort):  # the second is what a question gives that Ctrl-C ends
            click.echo("\nmirrorchat: interrupted", err=True)
            ctx.exit(INTERRUPTED_STATUS)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mirrorchat")
def cli() -> None:
    """MirrorChat: ask a question aloud, and hear the answer in your own voice."""


def main() -> None:
    """Run the command line and end the process: 0 when all went well, 1 when not, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        cli.main(prog_name="mirrorchat")
    except SystemExit as end:
        if end.code == INTERRUPTED_STATUS:  # all is closed; Python would wait for threads that native code keeps
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(INTERRUPTED_STATUS)
        raise
