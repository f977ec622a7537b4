"""Builds and runs deploy/Dockerfile without a container engine: as root, with debootstrap, in a folder for each stage.

    python scripts/check_dockerfile.py [--extras ""|full] [--xtts FOLDER] [--keep FOLDER]

Each stage begins as a clean Debian of debootstrap, in which every RUN and COPY is executed. Then the server starts as
the user of the image, without capabilities, on a root that is read-only except for the volume and /tmp. Its HEALTHCHECK
is run, and it is asked a question. With --xtts a model (such as one of scripts/make_tiny_xtts.py) is put on the volume
first, and must answer. During the RUN steps the stage uses this computer's access to packages (its resolver,
certificates, and settings of apt and pip), which does not become part of the image. It takes minutes, and no test runs
it.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from dockerfile import ROOT, Instruction, Stage, read

SUITES = {"debian:bookworm-slim": "bookworm"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_LIMIT_S = 120.0
LENT_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/xdg/pip")
CERTIFICATES = Path(
    "/etc/ssl/certs/ca-certificates.crt"
)  # lent under another name: a package of Debian's makes its own
LENT_CERTIFICATES = "/lent-certificates.crt"
LENT_VARIABLES = re.compile(r"(?i)(https?|no|all)_proxy|PIP_.*|SSL_CERT_FILE|REQUESTS_CA_BUNDLE")


@dataclass
class Built:
    """The state of a stage: its folder, and the values of ENV, ARG, WORKDIR and USER."""

    root: Path
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def debian(suite: str, folder: Path, cache: Path) -> None:
    """Make a clean Debian in `folder`. A second one of the same suite is a copy of the first."""
    clean = cache / suite
    if not clean.exists():
        say(f"debootstrap {suite}")
        command = ["debootstrap", "--variant=minbase", suite, str(clean)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cp", "--archive", "--reflink=auto", str(clean), str(folder)], check=True)


@contextmanager
def mounted(*pairs: tuple[str, Path, str]) -> Iterator[None]:
    """Mount each (what, where, options) for the block."""
    with ExitStack() as stack:
        for what, where, options in pairs:
            kind = ["-t", what] if what in ("proc", "tmpfs") else []
            subprocess.run(["mount", *kind, "-o", options, what, str(where)], check=True)
            stack.callback(subprocess.run, ["umount", str(where)], check=True)
        yield


@contextmanager
def lent(root: Path) -> Iterator[None]:
    """Give a stage this computer's access to packages by bind mounts during the block. Nothing is copied."""
    places = [*LENT_FILES, *_folders_that_pip_names()]
    pairs = [("proc", root / "proc", "nosuid")]
    made: list[Path] = []
    for place in (Path(place) for place in places if Path(place).exists()):
        target = root / place.relative_to("/")
        if not target.exists():
            made.append(target)
            made.extend(parent for parent in target.parents if not parent.exists())
            (target if place.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
            if place.is_file():
                target.touch()
        pairs.append((str(place.resolve()), target, "bind,ro"))
    if CERTIFICATES.exists():
        made.append(root / LENT_CERTIFICATES.lstrip("/"))
        made[-1].touch()
        pairs.append((str(CERTIFICATES.resolve()), made[-1], "bind,ro"))
    with _apt_settings(root), mounted(*pairs):
        yield
    for target in made:
        target.rmdir() if target.is_dir() else target.unlink()


def _folders_that_pip_names() -> list[str]:
    shown = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    named = re.findall(r"(?:file://)?(/[\w./-]+)", re.sub(r"https?://\S+", "", shown.stdout))
    folders = {place if Path(place).is_dir() else str(Path(place).parent) for place in named if Path(place).exists()}
    # an index on the disk is the folder "simple", whose links lead to files beside it
    folders = {str(Path(folder).parent) if Path(folder).name == "simple" else folder for folder in folders}
    return sorted(folder for folder in folders if folder not in ("/", "/etc", "/etc/ssl/certs", "/etc/xdg/pip"))


@contextmanager
def _apt_settings(root: Path) -> Iterator[None]:
    """Give apt in a stage the proxy of this computer."""
    shown = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
    proxies = [line for line in shown.stdout.splitlines() if re.match(r"Acquire::https?::(proxy|CaInfo)", line, re.I)]
    settings = root / "etc/apt/apt.conf.d/99lent"
    settings.write_text("\n".join([*proxies, 'APT::Sandbox::User "root";', ""]), encoding="utf-8")
    try:
        yield
    finally:
        settings.unlink(missing_ok=True)


def in_stage(built: Built, command: list[str], extra: Mapping[str, str]) -> list[str]:
    """Return the command that runs `command` in a stage without the environment of this computer."""
    environ = built.arguments | built.environ | dict(extra)
    pairs = [f"{name}={value}" for name, value in environ.items()]
    inside = ["sh", "-c", 'cd "$0" && exec "$@"', built.folder, *command]
    who = f"--userspec={built.user}:{built.user}"
    return ["chroot", who, str(built.root), "/usr/bin/env", "-i", *pairs, *inside]


def run(built: Built, instruction: Instruction) -> None:
    """Execute one RUN."""
    extra = {name: value.replace(str(CERTIFICATES), LENT_CERTIFICATES) for name, value in os.environ.items()
             if LENT_VARIABLES.fullmatch(name)}  # fmt: skip
    started = time.monotonic()
    with lent(built.root):
        command = in_stage(built, instruction.command, extra)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"RUN {instruction.rest}\n{done.stdout[-4000:]}")
    say(f"RUN {instruction.rest[:70]!r}: {time.monotonic() - started:.0f} s")


def copy(built: Built, instruction: Instruction, earlier: Mapping[str, Built], context: Path) -> None:
    """Execute one COPY, from an earlier stage or from the files in git."""
    *sources, target = instruction.words
    source_root = earlier[instruction.options["from"]].root if "from" in instruction.options else context
    place = built.root / (Path(built.folder) / target).relative_to("/")
    for source in sources:
        found = source_root / source.lstrip("/")
        if found.is_dir():
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True)
        else:
            to = place / found.name if target.endswith("/") else place
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, to)


def build(stage: Stage, root: Path, earlier: Mapping[str, Built], context: Path, arguments: Mapping[str, str]) -> Built:
    """Execute the instructions of a stage in `root`, which is a clean Debian."""
    built = Built(root)
    for instruction in stage.instructions:
        match instruction.word:
            case "ARG":
                built.arguments |= {name: arguments.get(name, value) for name, value in instruction.pairs.items()}
            case "ENV":
                built.environ |= instruction.pairs
            case "WORKDIR":
                built.folder = instruction.rest
                (root / instruction.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "USER":
                built.user = instruction.rest
            case "RUN":
                run(built, instruction)
            case "COPY":
                copy(built, instruction, earlier, context)
    return built


def checked_out(folder: Path) -> Path:
    """Copy the files in git, which are the context of a build in a clone."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def lay_on_the_volume(model: Path, volume: Path, user: str) -> None:
    """Put an XTTS model in the folder of `mirrorchat models install`."""
    target = volume / ".cache" / "mirrorchat" / "xtts-v2"
    shutil.copytree(model, target, dirs_exist_ok=True)
    subprocess.run(["chown", "--recursive", f"{user}:{user}", str(volume)], check=True)


def try_it(stage: Stage, built: Built, xtts: Path | None) -> None:
    """Start the image's command as its user on a read-only root, check its health, and ask it a question.

    With the folder `xtts`, XTTS must speak.
    """
    assert built.user not in ("0", "root"), "the server must not run as root"
    volume = stage.last("VOLUME").rest
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    extra = {"MIRRORCHAT_PORT": port}
    data = built.root / volume.lstrip("/")
    if xtts:
        lay_on_the_volume(xtts, data, built.user)
    mounts = [
        (str(built.root), built.root, "bind"), (str(data), data, "bind"), ("proc", built.root / "proc", "nosuid"),
        ("tmpfs", built.root / "dev/shm", "size=64m"), ("tmpfs", built.root / "tmp", "size=256m"),
    ]  # fmt: skip
    with mounted(*mounts):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(built.root)], check=True)
        started = time.monotonic()
        server = subprocess.Popen(in_stage(built, stage.last("CMD").command, extra))
        try:
            _wait_until_ready(int(port), server)
            say(f"ready as user {built.user} after {time.monotonic() - started:.1f} s")
            _check_process(server.pid, built)
            subprocess.run(in_stage(built, stage.last("HEALTHCHECK").command, extra), check=True)
            say("HEALTHCHECK passed")
            assert xtts is None or _speaks_with_xtts(int(port)), "another engine than XTTS speaks"
            say(f"the answer: {_ask(int(port))} bytes of wav")
        finally:
            server.terminate()
            server.wait(40)
    say(f"stopped with status {server.returncode}")


def _wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server was not ready within {START_LIMIT_S:g} s")


def _speaks_with_xtts(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
        return bool(json.load(response)["engines"]["synthesizer.en"]["name"] == "xtts")


def _check_process(pid: int, built: Built) -> None:
    """Check the user of the running server, and that it can write only to the permitted folders."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    assert re.search(rf"^Uid:\s+{built.user}\s+{built.user}\s", status, re.MULTILINE), "another user runs it"
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), "it has capabilities"
    for place, writable in (
        ("/opt/mirrorchat/x", False),
        ("/x", False),
        ("/tmp/x", True),
        ("/var/lib/mirrorchat/x", True),
    ):
        done = subprocess.run(in_stage(built, ["touch", place], {}), capture_output=True)
        assert (done.returncode == 0) == writable, f"{place}: {done.stderr.decode()}"
    as_root = subprocess.run(in_stage(replace(built, user="0"), ["touch", "/x"], {}), capture_output=True, text=True)
    assert "Read-only file system" in as_root.stderr, "the root is not read-only"


def _ask(port: int) -> int:
    """Ask the example question, and return the number of bytes of the wav."""
    boundary = "check-dockerfile"
    audio = (ROOT / "examples" / "question.wav").read_bytes()
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    body = f'{part}language"\r\n\r\nenglish\r\n{part}audio"; filename="q.wav"\r\n\r\n'.encode() + audio
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/process_audio", body + f"\r\n--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=90) as response:
        answer: bytes = response.read()
    assert answer[:4] == b"RIFF", "the answer is no wav"
    return len(answer)


def megabytes(folder: Path) -> int:
    shown = subprocess.run(["du", "-sxm", str(folder)], capture_output=True, text=True, check=True)
    return int(shown.stdout.split()[0])


def _in_namespaces_of_its_own() -> None:
    """Start again in namespaces of mounts and processes that end with this process."""
    unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ["MIRRORCHAT_OWN_MOUNTS"] = "1"
    os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extras", default="", help='EXTRAS of the build: "" (the default here) or full')
    parser.add_argument(
        "--xtts",
        type=Path,
        help="a model of XTTS that is to answer, with --extras full (a random one may be silent: try --seed)",
    )
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    given = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit("check_dockerfile: this needs root and debootstrap (apt install debootstrap)")
    if "MIRRORCHAT_OWN_MOUNTS" not in os.environ:
        _in_namespaces_of_its_own()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the first process of a namespace ignores it else
    work = given.keep or Path(tempfile.mkdtemp(prefix="mirrorchat-image-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        context = checked_out(work / "context")
        done: dict[str, Built] = {}
        for number, stage in enumerate(stages := read()):
            root = work / f"stage-{number}"
            debian(SUITES[stage.image.partition("@")[0]], root, work)
            done[stage.name] = build(stage, root, done, context, {"EXTRAS": given.extras})
            say(f"stage {stage.name or 'last'}: {megabytes(root)} MB")
        try_it(stages[-1], done[stages[-1].name], given.xtts)
    finally:
        if given.keep is None:
            subprocess.run(["rm", "-rf", "--one-file-system", str(work)], check=True)


if __name__ == "__main__":
    main()
