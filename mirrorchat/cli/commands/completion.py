"""`mirrorchat completion` prints the script with which a shell completes commands, options and choices."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    For bash and zsh, add to ~/.bashrc or ~/.zshrc: eval "$(mirrorchat completion bash)" (or zsh). For fish, run once:
    mirrorchat completion fish > ~/.config/fish/completions/mirrorchat.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click supports all three"
    click.echo(kind(context.find_root().command, {}, "mirrorchat", "_MIRRORCHAT_COMPLETE").source())
