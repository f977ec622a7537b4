"""Every command and code block of the README, run as its reader would: in a clone, with a home folder of its own."""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from make_tiny_xtts import make_checkpoint
from support.hub_server import HubServer
from support.model_releases import archive_of
from support.places import ROOT
from support.running_server import START_LIMIT_S, free_port
from support.tiny_xtts import pickled_copy
from support.trained_wenet import write_trained_checkpoint
from tiny_wenet_speech import Code

from mirrorchat.access.api_keys import hashed
from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.progress import size_text
from mirrorchat.settings import load_settings
from mirrorchat.wenet.package_load import INSTALL

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
READMES = ("README.md", "README.zh-CN.md")


def blocks_of(name: str) -> list[tuple[str, str]]:
    """Return the code blocks of a README, each with its language."""
    return [(language, text) for language, text in BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))]


BLOCKS = blocks_of("README.md")


def block(start: str) -> str:
    """Return the README's one block that begins with `start`."""
    found: list[str] = [text for _, text in BLOCKS if text.startswith(start)]
    assert len(found) == 1, f"the README has {len(found)} blocks that begin with {start!r}"
    return found[0]


class Clone:
    """A copy of the repository as git has it, which shares the environment that the tests run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mirrorchat"
        self.home = folder / "home"
        self.home.mkdir()
        self.port = free_port()
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        # brought up to date first: the clone's scripts shall find nothing to install, least of all the clone itself
        subprocess.run([str(ROOT / "scripts" / "environment"), "full", "test", "evaluate"], check=True)
        (self.folder / ".venv").symlink_to(ROOT / ".venv")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("MIRRORCHAT_")}
        # another port than the README's, so that a server that runs on this machine is not in the way
        self.environ |= {"HOME": str(self.home), "MIRRORCHAT_PORT": str(self.port)}

    def with_home(self, home: Path) -> "Clone":
        """Return the clone as somebody has it whose home folder is `home`: what is installed there is theirs alone."""
        other = copy.copy(self)
        home.mkdir()
        other.home = home
        other.environ = self.environ | {"HOME": str(home)}
        return other

    def run(self, command: str, *, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a shell command of the README and return what became of it."""
        return subprocess.run(
            ["bash", "-c", command.replace("9990", str(self.port))],
            cwd=folder or self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120,
        )  # fmt: skip

    @contextmanager
    def serving(self, command: str) -> Iterator[str]:
        """Run a command of the README that serves, and yield the address once it answers."""
        url = f"http://127.0.0.1:{self.port}"
        with (self.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environ, stdout=log, stderr=log
            )
        try:
            limit = time.monotonic() + START_LIMIT_S
            while not _is_ready(url):
                assert process.poll() is None and time.monotonic() < limit, self.log
                time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8")


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("clone"))


def test_serve_and_the_two_clients(clone: Clone) -> None:
    answer = clone.folder / "answer.wav"
    with clone.serving(block("scripts/serve\n")):
        for stage in ("recognizer.zh", "recognizer.en", "chat", "synthesizer.zh", "synthesizer.en"):
            assert stage in clone.log
        assert f"http://127.0.0.1:{clone.port}" in clone.log
        called = clone.run(block("curl --fail"))
        assert called.returncode == 0, called.stdout
        assert answer.read_bytes()[:4] == b"RIFF"
        answer.unlink()
        client = block("import requests").replace("9990", str(clone.port))
        subprocess.run([sys.executable, "-c", client], cwd=clone.folder, check=True, timeout=120)
        assert answer.read_bytes()[:4] == b"RIFF"
        openai_client = block("from openai import OpenAI").replace("9990", str(clone.port))
        subprocess.run([sys.executable, "-c", openai_client], cwd=clone.folder, check=True, timeout=120)
        assert (clone.folder / "hello.mp3").stat().st_size > 5_000
        assert list((clone.home / ".local" / "share" / "mirrorchat" / "voices").iterdir()) == []  # it was deleted
        refused = clone.run(block("curl --fail").replace("english", "klingon"))
        assert refused.returncode == 22  # curl says so instead of saving an error as audio unnoticed
        check_streams(clone)


def check_streams(clone: Clone) -> None:
    """Run the commands that stream; what is played on a loudspeaker is kept in a file instead."""
    command = block("curl -N --fail")
    assert command.count("ffplay -nodisp -autoexit -") == 1
    streamed = clone.run(command.replace("ffplay -nodisp -autoexit -", "cat > streamed.wav"))
    assert streamed.returncode == 0, streamed.stdout
    assert (clone.folder / "streamed.wav").read_bytes()[:8] == b"RIFF\xff\xff\xff\xff"
    events = clone.run(block("curl -N -F"))
    # Not from a line's start: curl's progress on stderr may stand before the first.
    assert {"transcript", "text", "audio", "done"} <= set(re.findall(r"event: (\w+)", events.stdout))


def test_the_test_command_runs_tests(clone: Clone) -> None:
    # all tests would run this one again: a part of them shows that the command works
    run = clone.run(block("scripts/test\n").strip() + " tests/unit/test_settings.py")
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout


def test_the_configuration_is_valid(clone: Clone) -> None:
    config = clone.home / "config.py"
    config.write_text(block("chatgpt_apis = ["), encoding="utf-8")
    hosts = [api.host for api in load_settings(config, environ={}).chatgpt_apis]
    assert hosts == ["api.openai.com", "127.0.0.1:11434"]


def test_wenets_package_is_the_commit_that_was_tried(tmp_path: Path) -> None:
    assert INSTALL.endswith(block(".venv/bin/pip install git+").strip())
    (tmp_path / "config.py").write_text(block("recognizer = "), encoding="utf-8")
    settings = load_settings(environ={}, folder=tmp_path)
    assert settings.recognizer == {"chinese": "wenet:paraformer", "english": "wenet:whisper-large-v3-turbo"}


def test_models_are_installed_and_found(clone: Clone, tmp_path: Path) -> None:
    clone = clone.with_home(tmp_path / "home")
    codes: dict[str, Code] = {"wenet-zh": "zh", "wenet-en": "en"}
    stick = tmp_path / "stick"
    make_checkpoint(tmp_path / "made")
    pickled_copy(tmp_path / "made", stick / "xtts-v2")
    accept = " --accept-licence cpml,wenetspeech,cc-by-4.0"
    with HubServer() as hub:
        for name, code in codes.items():
            checkpoint = write_trained_checkpoint(tmp_path / code, code)
            archive = archive_of({file.name: file.read_bytes() for file in checkpoint.iterdir()})
            (stick / RELEASES[name].files[0].name).write_bytes(archive)
            hub.publish(RELEASES[name].hugging_face.name, RELEASES[name].files[0].name, archive)
        fetch = block(".venv/bin/mirrorchat models install xtts").strip().replace("xtts-v2 ", "") + accept
        fetched = clone.run(f"HF_ENDPOINT={hub.url} {fetch}")
        assert fetched.returncode == 0, fetched.stdout
    carry = block(".venv/bin/mirrorchat models install --from").strip().replace("/media/stick", str(stick))
    carried = clone.run(f"{carry} --replace --allow-changed {accept}")  # the tiny XTTS is not the published one
    assert carried.returncode == 0, carried.stdout
    with clone.serving(block("scripts/serve\n").strip()) as url:
        engines = requests.get(f"{url}/readyz", timeout=5).json()["engines"]
        assert engines["recognizer.zh"]["name"] == engines["recognizer.en"]["name"] == "wenet"
        assert engines["synthesizer.en"]["name"] == "xtts"


def test_the_doctor_says_what_is_shown(clone: Clone) -> None:
    run = clone.run(block(".venv/bin/mirrorchat doctor"))
    assert run.returncode == 0, run.stdout
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for part in text.partition("A part of what it says out of the box:")[2].split("```")[1].split("..."):
        assert without_times(part) in without_times(run.stdout)


def without_times(text: str) -> str:
    return " ".join(re.sub(r"[\d.]+ m?s\b", "N", " ".join(text.split())).split())


@pytest.mark.parametrize(
    ("name", "non_commercial"), [("README.md", ": non-commercial"), ("README.zh-CN.md", "：非商业")]
)
def test_the_table_of_models_is_that_of_the_manifest(name: str, non_commercial: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for release in RELEASES.values():
        size, licence = size_text(release.download_bytes), release.licence
        restriction = non_commercial if licence.terms.startswith("non-commercial") else ""
        line = rf"\| `{release.name}` \| .* \| {size} \| `{re.escape(licence.code)}`{restriction} \|"
        assert re.search(line, text), release.name


def test_the_command_line_asks_hears_and_says(clone: Clone) -> None:
    done = clone.run(block(".venv/bin/mirrorchat ask").replace("\n", " &&\n", 2))
    assert done.returncode == 0, done.stdout
    assert "What is the best way to learn a language\n" in done.stdout
    for name in ("answer.wav", "morning.wav"):
        assert (clone.folder / name).read_bytes()[:4] == b"RIFF"


def test_other_machines_are_let_in_with_keys_only(clone: Clone) -> None:
    refused = clone.run(block("scripts/serve --host"))
    assert refused.returncode != 0
    assert "set api_keys in config.py" in refused.stdout and "Traceback" not in refused.stdout


def test_keys_are_made(clone: Clone) -> None:
    made = clone.run(block(".venv/bin/mirrorchat key"))
    found = re.fullmatch(r"key   (\S+)\nhash  (sha256:\S+)\n", made.stdout)
    assert found and hashed(found[1]) == found[2]


def test_https_on_a_lan(clone: Clone) -> None:
    # What belongs to the machine lies in a folder, and nginx, which the rest of the recipe is for, is not reloaded: a
    # test of deploy/ runs these files in a real one.
    site = clone.home / "nginx"
    (site / "conf.d").mkdir(parents=True)
    (site / "sites-enabled").mkdir()
    (site / "sites-enabled" / "default").touch()
    recipe = block("deploy/make_certificate").removesuffix("sudo nginx -t\nsudo systemctl reload nginx\n")
    done = clone.run("set -e\n" + recipe.replace("sudo ", "").replace("/etc/nginx", str(site)))
    assert done.returncode == 0, done.stdout
    files = sorted(str(file.relative_to(site)) for file in site.rglob("*") if file.is_file())
    names = ("nginx-https.conf", "server.crt", "server.key")
    assert files == ["conf.d/mirrorchat.conf", *(f"mirrorchat/{name}" for name in names)]
    listed = clone.run("git init --quiet . && git status --short --untracked-files=all")
    assert "certificates/" not in listed.stdout  # a key that nobody commits by mistake


def test_no_block_is_left_out() -> None:
    run = [start.replace("\\n", "\n") for start in re.findall(r'block\("([^"]+)"\)', Path(__file__).read_text())]
    assert [text for _, text in BLOCKS if not any(text.startswith(start) for start in run)] == []


def test_both_readmes_have_the_same_blocks_tables_and_sections() -> None:
    """So what is run of the one is true of the other; and what is told in one is told in the other."""
    assert blocks_of("README.zh-CN.md") == BLOCKS
    shapes = []
    for name in READMES:
        lines = re.sub(BLOCK, "", (ROOT / name).read_text(encoding="utf-8")).splitlines()
        headings = [line.partition(" ")[0] for line in lines if line.startswith("#")]
        rows = [line.count("|") for line in lines if line.startswith("|")]
        shapes.append((headings, rows))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
                for line in text.splitlines() if line.startswith("#")}  # fmt: skip
    for target in re.findall(r"\]\(([^)]+)\)", text.replace("\n", " ")):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (ROOT / target).exists(), target
