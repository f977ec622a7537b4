"""Reports the configuration for `mirrorchat doctor`: its file, and the settings that differ from the defaults.

It shows the host and model of chat APIs, the number of keys and headers, the names in `extra_body`, and the length of
the prompt.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import cast

from mirrorchat.access.definitions import definitions
from mirrorchat.cli.doctor.findings import Finding, counted, ok, problem
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import CONFIG_VARIABLE, ChatApi, Settings, config_file, load_settings

_SUBJECT = "file"


def read_settings() -> tuple[Settings | None, list[Finding]]:
    """Return the settings and the findings about them. The settings are None if they cannot be read."""
    file = config_file(os.environ)
    source = str(file) if file else "none: every setting has its default (config.example.py lists them)"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # output of the file is not part of the report
            settings = load_settings()
    except ConfigurationError as error:
        places = f"{file} or the environment" if file else "the environment"
        remedy = f"correct {places}: the server cannot start; config.example.py has examples"
        if file and not file.exists():
            remedy = f"set {CONFIG_VARIABLE} to an existing file, or unset it"
        return None, [problem(_SUBJECT, error.message, remedy)]
    except SystemExit:
        return None, [problem(_SUBJECT, f"{file} ends the program", f"remove the exit from {file}")]
    changed = {name: _shown(getattr(settings, name)) for name in _changed(settings)}
    found = [ok(name, text) for name, text in changed.items()]
    return settings, [ok(_SUBJECT, source, path=str(file) if file else None, changed=len(changed)), *found]


def _changed(settings: Settings) -> list[str]:
    """Return the names of the settings that differ from their defaults."""
    default = Settings()
    return [name for name in definitions(Settings) if getattr(settings, name) != getattr(default, name)]


def _shown(value: object) -> str:
    """Return a setting without its secrets."""
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
        match entry.name:
            case "headers":
                parts.append(f"{counted(len(value), 'header')}, not shown")
            case "extra_body":  # its values may be secret
                parts.append(f"extra_body with {', '.join(value)}")
            case _:
                parts.append(f"{entry.name} {value:g}")
    return ", ".join(parts)
