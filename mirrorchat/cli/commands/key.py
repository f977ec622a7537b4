"""`mirrorchat key` makes a random key for `api_keys`, with its hash."""

import json
import sys

import click

from mirrorchat.access.api_keys import hashed, is_key, new_key
from mirrorchat.errors import ConfigurationError


@click.command()
@click.option("--stdin", "from_stdin", is_flag=True, help="Hash a key from standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def key(from_stdin: bool, as_json: bool) -> None:
    """Make a key for api_keys.

    Prints a random key and its hash. A caller sends the key as 'Authorization: Bearer KEY'; the hash is an entry of
    api_keys in config.py or in MIRRORCHAT_API_KEYS. The key is not stored.
    """
    made = ("" if sys.stdin is None else sys.stdin.readline().strip()) if from_stdin else new_key()
    if not is_key(made):
        raise ConfigurationError("a key must be at least 16 printable ASCII characters")
    if as_json:
        click.echo(json.dumps({"key": made, "hash": hashed(made)}))
    else:
        click.echo(f"key   {made}\nhash  {hashed(made)}")
