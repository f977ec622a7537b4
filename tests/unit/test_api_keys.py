"""API keys: hashes in memory, keys and hashes alike in the configuration, and the command that makes them."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.places import ROOT

from mirrorchat.access.api_keys import hashed, is_key, known_owner, new_key
from mirrorchat.access.settings import KEYS_VARIABLE
from mirrorchat.cli.main import cli
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import CONFIG_VARIABLE, Settings, config_file, load_settings
from mirrorchat.turn.sessions import owner_of

KEY = "0123456789abcdef"
HASH = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()


def test_a_key_and_its_hash_are_the_same_owner(tmp_path: Path) -> None:
    plain, hashes = Settings(api_keys=(KEY,)), Settings(api_keys=(HASH.replace("a", "A").replace("shA", "sha"),))
    assert plain.api_keys == hashes.api_keys == (HASH,)
    assert known_owner(KEY, plain.api_keys) == known_owner(KEY, hashes.api_keys) == owner_of(KEY)
    assert Settings(api_keys=(KEY, HASH, KEY)).api_keys == (HASH,)


def test_only_hashes_are_kept(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(f"api_keys = [{KEY!r}]", encoding="utf-8")
    settings = load_settings(environ={}, folder=tmp_path)
    assert KEY not in str(vars(settings)) and HASH in str(vars(settings))


@pytest.mark.parametrize("given", ["", " ", KEY + "x", KEY[:-1], HASH, HASH.removeprefix("sha256:"), "\xe9" * 16])
def test_what_is_no_key_opens_nothing(given: str) -> None:
    # not even the hash, which a configuration may show; nor the hash of nothing, should somebody list it
    assert known_owner(given, (HASH, hashed(KEY * 2), hashed(""))) is None


def test_the_environment_stands_above_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("api_keys = ['another-key-0123456789']", encoding="utf-8")
    for text in (f"{KEY},{HASH}", f"\n {KEY} \n\n", f"{HASH}\r\n", f",{KEY},"):
        settings = load_settings(environ={"MIRRORCHAT_API_KEYS": text, "MIRRORCHAT_HOST": "0.0.0.0"}, folder=tmp_path)
        assert settings.api_keys == (HASH,)
    for blank in ("", " \n,"):
        settings = load_settings(environ={"MIRRORCHAT_API_KEYS": blank}, folder=tmp_path)
        assert settings.api_keys == (hashed("another-key-0123456789"),)
    with pytest.raises(ConfigurationError, match="at least 16") as caught:
        load_settings(environ={"MIRRORCHAT_API_KEYS": f"{KEY},secret"}, folder=tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("entry", ["sha256:", HASH[:-1], HASH + "0", HASH[:-1] + "g", "short", "a" * 15 + "\n", 5])
def test_what_can_be_no_entry(entry: object) -> None:
    assert not is_key(entry)


def test_the_command_makes_a_key_and_its_hash() -> None:
    first, second = (CliRunner().invoke(cli, ["key"]).stdout for _ in range(2))
    assert first != second
    found = re.fullmatch(r"key   (mc-[\w-]{32})\nhash  (sha256:[0-9a-f]{64})\n", first)
    assert found and known_owner(found[1], (found[2],)) == owner_of(found[1]) and is_key(found[1])
    shown = CliRunner().invoke(cli, ["key", "--stdin", "--json"], input=KEY + "\n")
    assert json.loads(shown.output) == {"key": KEY, "hash": HASH}
    assert CliRunner().invoke(cli, ["key", "--stdin"], input="short\n").exit_code == 1
    assert len({new_key() for _ in range(100)}) == 100


def test_the_command_says_where_its_lines_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "own.py"))
    told = CliRunner().invoke(cli, ["key", "--stdin"], input=KEY + "\n").stderr
    assert f'write the hash into {tmp_path / "own.py"}: api_keys = ["{HASH}"]; or set {KEYS_VARIABLE}\n' in told
    assert "Authorization: Bearer KEY" in told and "when it starts" in told and KEY not in told
    monkeypatch.delenv(CONFIG_VARIABLE)
    assert f"into {config_file({}) or ROOT / 'config.py'}: " in CliRunner().invoke(cli, ["key"]).stderr
    monkeypatch.setenv(KEYS_VARIABLE, HASH)
    told = CliRunner().invoke(cli, ["key"]).stderr
    assert f"add the hash to {KEYS_VARIABLE}, which is set and overrides api_keys" in told and "config.py" not in told
