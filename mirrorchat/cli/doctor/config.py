"""The configuration as `mirrorchat doctor` shows it: where it comes from, and what differs from the defaults.

Of the chat APIs host and model are shown, of keys and headers how many there are, of the prompt its length.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import cast

from mirrorchat.cli.doctor.findings import Finding, counted, ok, problem
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import CONFIG_VARIABLE, ChatApi, Settings, config_file, load_settings

_SUBJECT = "file"


def read_settings() -> tuple[Settings | None, list[Finding]]:
    """Return the settings, or None where they cannot be read, and what is to be said of them."""
    file = config_file(os.environ)
    source = str(file) if file else "none: every setting has its default (config.example.py lists them)"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the file prints is not ours
            settings = load_settings()
    except ConfigurationError as error:
        remedy = (
            f"correct {file or 'the settings'}, which keeps the server from starting; config.example.py has examples"
        )
        if file and not file.exists():
            remedy = f"set {CONFIG_VARIABLE} to a file that is there, or unset it"
        return None, [problem(_SUBJECT, error.message, remedy)]
    except SystemExit:
        return None, [problem(_SUBJECT, f"{file} ends the program", f"take the exit out of {file}")]
    changed = {name: _shown(getattr(settings, name)) for name in _changed(settings)}
    found = [ok(name, text) for name, text in changed.items()]
    return settings, [ok(_SUBJECT, source, path=str(file) if file else None, changed=len(changed)), *found]


def _changed(settings: Settings) -> list[str]:
    """Return the names of the settings that are not as they are where nothing is set."""
    default = Settings()
    names = [entry.name for entry in dataclasses.fields(Settings)]
    return [name for name in names if getattr(settings, name) != getattr(default, name)]


def _shown(value: object) -> str:
    """Return a setting as it may be seen by anyone."""
    match value:
        case (ChatApi(), *_):
            return "; ".join(f"{index}. {_api(cast(ChatApi, api))}" for index, api in enumerate(value, 1))
        case tuple():
            return f"{counted(len(value), 'key')}, not shown" if value else "none"
        case Mapping():
            return ", ".join(f"{name}: {entry}" for name, entry in value.items())
        case str() if "{language}" in value or len(value) > 80:
            return f"{len(value)} characters"
    return str(value)


def _api(api: ChatApi) -> str:
    default = ChatApi("")
    parts = [f"{api.model}@{api.host}", "with a key" if api.key else "without a key"]
    for entry in dataclasses.fields(ChatApi):
        value = getattr(api, entry.name)
        if entry.name in ("url", "key", "model") or value == getattr(default, entry.name):
            continue
        parts.append(
            f"{counted(len(value), 'header')}, not shown" if entry.name == "headers" else f"{entry.name} {value:g}"
        )
    return ", ".join(parts)
