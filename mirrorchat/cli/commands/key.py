"""`mirrorchat key` makes a random key for `api_keys`, with its hash."""

import json
import os
import sys

import click

from mirrorchat.access.api_keys import hashed, is_key, new_key
from mirrorchat.access.settings import KEYS_VARIABLE, list_in_environment
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import settings_file


@click.command()
@click.option("--stdin", "from_stdin", is_flag=True, help="Hash a key from standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def key(from_stdin: bool, as_json: bool) -> None:
    """Make a key for api_keys.

    Prints a random key and its hash on standard output, and where each of them goes on standard error. The key is not
    stored.
    """
    made = ("" if sys.stdin is None else sys.stdin.readline().strip()) if from_stdin else new_key()
    if not is_key(made):
        raise ConfigurationError("a key must be at least 16 printable ASCII characters")
    if as_json:
        click.echo(json.dumps({"key": made, "hash": hashed(made)}))
    else:
        click.echo(f"key   {made}\nhash  {hashed(made)}")
        click.echo(_where_they_go(hashed(made)), err=True)


def _where_they_go(key_hash: str) -> str:
    """Return what the caller does with the key, and where the server's owner puts the hash."""
    line = f"api_keys = [{json.dumps(key_hash)}]"
    place = f"write the hash into {settings_file(os.environ)}: {line}; or set {KEYS_VARIABLE}"
    if list_in_environment(os.environ, KEYS_VARIABLE):
        place = f"add the hash to {KEYS_VARIABLE}, which is set and overrides api_keys of the configuration file"
    return (
        f"The caller sends the key with each request: Authorization: Bearer KEY\nFor the server, {place}\n"
        "Each entry of the list admits a key. The server reads the list when it starts: restart a server that runs."
    )
