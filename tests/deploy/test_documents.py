"""Every command and code block of the documents, run as a reader would: in a clone, with a home folder of its own.

What cannot run here is listed in `NOT_RUN` with the reason, and is compared with the files that it is about.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
import soundfile
import yaml
from make_question import NAMES, question
from make_tiny_xtts import make_checkpoint
from support.chat_server import ChatServer, answer
from support.clone import Clone
from support.hub_server import HubServer
from support.model_releases import archive_of
from support.places import ROOT
from support.small_models import kokoro_folder, whisper_folder
from support.speech import say_wav
from support.tiny_xtts import pickled_copy
from support.trained_wenet import write_trained_checkpoint
from tiny_wenet_speech import Code

from mirrorchat.access.api_keys import hashed
from mirrorchat.cli.synthetic_speech import QUESTIONS
from mirrorchat.engines import Language
from mirrorchat.errors import ClientGone, MirrorChatError
from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.progress import size_text
from mirrorchat.openai.openapi import openai_paths
from mirrorchat.settings import load_settings
from mirrorchat.small.speech import NeutralSpeech
from mirrorchat.wenet.package_load import INSTALL

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DOCUMENT_NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
READMES = ("README.md", "README.zh-CN.md")
TRANSLATED = [
    ("README.md", "README.zh-CN.md"),
    ("docs/install.md", "docs/zh/install.md"),
    ("docs/clients.md", "docs/zh/clients.md"),
    ("docs/evaluate.md", "docs/zh/evaluate.md"),
]
OWN_FILES = {"config.py", "chatgpt_api_config.py"}  # that users write; the repository has none of them

# Blocks, or their beginnings, and why no test runs them.
NOT_RUN = {
    "sudo apt install build-essential python3-dev python3-venv\n": "it changes the machine, and needs the network",
    "export MIRRORCHAT_API_KEYS": "there is no Docker here; scripts/check_dockerfile.py tries what it starts",
    ".venv/bin/pip install git+": "it needs the network; test_wenet_package.py tries the package where it is installed",
    "scripts/check ": "it is the gate, of which this test is a part",
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_of(name: str) -> list[tuple[str, str]]:
    """Return the code blocks of a document, each with its language."""
    return [(language, text) for language, text in BLOCK.findall(read(name))]


BLOCKS = list(dict.fromkeys(each for name in DOCUMENT_NAMES for each in blocks_of(name)))


def block(start: str) -> str:
    """Return the documents' one block that begins with `start`."""
    found: list[str] = [text for _, text in BLOCKS if text.startswith(start)]
    assert len(found) == 1, f"the documents have {len(found)} different blocks that begin with {start!r}"
    return found[0]


def is_configuration(language: str, text: str) -> bool:
    """Tell whether a block is a part of config.py: Python that only assigns."""
    return language == "python" and all(isinstance(each, ast.Assign | ast.AnnAssign) for each in ast.parse(text).body)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("clone"))


# The server and what is asked of it


def test_the_server_answers_what_the_documents_ask(clone: Clone) -> None:
    with clone.serving(block("scripts/serve\n")):
        for stage in ("recognizer.zh", "recognizer.en", "chat", "synthesizer.zh", "synthesizer.en"):
            assert stage in clone.log
        assert f"http://127.0.0.1:{clone.port}" in clone.log
        check_questions_on_the_floor(clone)
        check_clients(clone)
        check_streams(clone)
        check_operations(clone)


def test_the_small_models_answer_what_the_readme_asks(clone: Clone, tmp_path: Path) -> None:
    models = {"whisper-base": whisper_folder(), "kokoro": kokoro_folder()}
    clone = clone.with_home(tmp_path / "home")
    link_models(clone, models)
    with clone.serving(block("scripts/serve\n"), models=True):
        check_questions(clone)


def link_models(clone: Clone, folders: Mapping[str, Path]) -> None:
    """Give the user of `clone` the models that are in `folders`."""
    models = clone.home / ".cache" / "mirrorchat"
    models.mkdir(parents=True)
    for name, folder in folders.items():
        (models / name).symlink_to(folder)


def test_a_chat_api_of_the_environment_answers(clone: Clone) -> None:
    """The README's two ways: what the first one starts is asked nothing, and the second one's Ollama is a test's."""
    with clone.serving(block("OPENAI_API_KEY=sk-... scripts/serve\n")):
        assert re.search(r"chat +chat/gpt-4o-mini@api\.openai\.com on \w+: OPENAI_API_KEY is set", clone.log)
    with ChatServer(answer("Sunny.")) as api:
        with clone.serving(block("MIRRORCHAT_CHAT_URL=").replace("11434", str(api.port))) as url:
            asked = {"text": "What is the weather like?", "language": "english"}
            with (clone.folder / "examples" / "question.wav").open("rb") as question:
                response = requests.post(f"{url}/process_audio", data=asked, files={"audio": question}, timeout=60)
            assert response.headers["X-MirrorChat-Reply"] == "Sunny."
        assert [(request.path, request.body["model"]) for request in api.requests] == [
            ("/v1/chat/completions", "qwen2.5")]  # fmt: skip


def check_questions(clone: Clone) -> None:
    """Ask the README's questions, compare what is said with what it shows, and see that a refusal is shown."""
    english, chinese = questions()
    for command, name in ((english, "answer.wav"), (chinese, "answer_zh.wav")):
        said = reply(clone, command, name)
        for readme in READMES:
            assert f"> *{said}*\n" in read(readme)
    refused = clone.run(english.replace("english", "klingon"))
    assert '"code":"invalid_value"' in refused.stdout


def check_questions_on_the_floor(clone: Clone) -> None:
    """Ask them where pocketsphinx hears: without a question mark, and Chinese with its words, as the README says."""
    english, chinese = questions()
    heard = reply(clone, english, "answer.wav")
    assert f"> *{heard.removesuffix('.')}?*\n" in read("README.md")
    assert clone.run(chinese).stdout.count("models install small") == 1
    words = f'-F text="{QUESTIONS[Language.CHINESE][0]}"'
    assert all(f"`{words}`" in read(readme) for readme in READMES)
    given = reply(clone, chinese.replace("-F language", f"{words} -F language"), "answer_zh.wav")
    assert f"> *{given}*\n" in read("README.md")


def questions() -> tuple[str, str]:
    """Return the README's English question and its Chinese one."""
    english = block("curl --fail-with-body -F audio=@examples/question.wav -F language=english \\")
    return english, block("curl --fail-with-body -F audio=@examples/question_zh.wav")


def reply(clone: Clone, command: str, name: str) -> str:
    """Ask with a command that writes the answer into the file `name`; return its words."""
    asked = clone.run(command.replace("curl", "curl --silent --dump-header headers.txt"))
    assert (clone.folder / name).read_bytes()[:4] == b"RIFF", asked.stdout
    headers = (clone.folder / "headers.txt").read_text(encoding="ascii")
    (words,) = re.findall(r"^X-MirrorChat-Reply: (\S+)", headers, re.MULTILINE)
    return unquote(words)


def test_the_questions_are_what_the_script_makes() -> None:
    """Their length and rate: the networks compute a little differently on another processor."""
    speech = NeutralSpeech(kokoro_folder(), threads=1)
    for language, name in NAMES.items():
        example, spoken = soundfile.info(ROOT / "examples" / name), question(speech, language)
        assert example.samplerate == spoken.sample_rate
        assert example.duration == pytest.approx(spoken.duration_s, abs=0.1)


def check_clients(clone: Clone) -> None:
    (clone.folder / "answer.wav").unlink()
    for start in (block("import requests"), block("from openai import OpenAI")):
        subprocess.run([sys.executable, "-c", clone.text(start)], cwd=clone.folder, check=True, timeout=120)
    assert (clone.folder / "answer.wav").read_bytes()[:4] == b"RIFF"
    assert (clone.folder / "hello.mp3").stat().st_size > 5_000
    assert list((clone.home / ".local" / "share" / "mirrorchat" / "voices").iterdir()) == []  # it was deleted


def check_streams(clone: Clone) -> None:
    """Run the commands that stream; what would be played on a loudspeaker is kept in a file."""
    command = block("curl -N --fail")
    assert command.count("ffplay -nodisp -autoexit -") == 1
    streamed = clone.run(command.replace("ffplay -nodisp -autoexit -", "cat > streamed.wav"))
    assert streamed.returncode == 0, streamed.stdout
    assert (clone.folder / "streamed.wav").read_bytes()[:8] == b"RIFF\xff\xff\xff\xff"
    events = clone.run(block("curl -N -F").replace("curl", "curl --silent"))
    sent = {name: set(json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)", events.stdout)}
    shown = re.findall(r"event: (\w+)\ndata: (.*)", block("event: transcript"))
    assert {name: set(re.findall(r'[{ ]"(\w+)":', data)) for name, data in shown} == sent


def check_operations(clone: Clone) -> None:
    """Run what docs/operations.md asks, and compare its metrics and its line of the log with the server's."""
    ready = clone.run(block("curl --fail http://127.0.0.1:9990/readyz"))
    assert ready.returncode == 0 and '"status":"ready"' in ready.stdout
    metrics = clone.run(block("curl --fail http://127.0.0.1:9990/metrics"))
    for name in re.findall(r"`(mirrorchat_\w+)`", read("docs/operations.md")):
        assert re.search(rf"^# TYPE {name} ", metrics.stdout, re.MULTILINE), name
    lines = [line for line in clone.log.splitlines() if "route=process_audio status=200" in line]
    assert re.findall(r"(\w+)=", block("request=")) == re.findall(r"(\w+)=", lines[0])


def test_other_machines_are_let_in_with_keys_only(clone: Clone) -> None:
    refused = clone.run(block("scripts/serve --host"))
    assert refused.returncode != 0
    assert "set api_keys in config.py" in refused.stdout and "Traceback" not in refused.stdout


# Installation and models


def test_the_real_thing_is_installed_and_served(clone: Clone, tmp_path: Path) -> None:
    """The README's line for a GPU, on the CPU: with tiny models, one of them from a server that speaks as the hub does.

    The others are installed before: they are not the published ones, whose checksums are known.
    """
    clone = clone.with_home(tmp_path / "home")
    link_models(clone, {"whisper-base": whisper_folder()})
    line = block("OPENAI_API_KEY=sk-... scripts/serve --models").strip()
    refused = clone.run(f"{line} </dev/null")
    assert refused.returncode == 1 and "add --accept-licence cpml,wenetspeech,cc-by-4.0\n" in refused.stdout
    stick, codes = make_stick(tmp_path), refused.stdout.split("--accept-licence ")[1].split()[0]
    assert all(f"`--accept-licence {codes}`" in read(readme) for readme in READMES)
    offline = block(".venv/bin/mirrorchat models install --from").strip().replace("/media/stick", str(stick))
    installed = clone.run(f"{offline} --allow-changed --accept-licence {codes}")
    assert installed.returncode == 0, installed.stdout
    assert clone.run(".venv/bin/mirrorchat models remove wenet-zh").returncode == 0
    with HubServer() as hub:
        chinese = RELEASES["wenet-zh"]
        hub.publish(chinese.hugging_face.name, chinese.files[0].name, (stick / chinese.files[0].name).read_bytes())
        with clone.serving(f"HF_ENDPOINT={hub.url} {line} --accept-licence {codes}", models=True) as url:
            engines = requests.get(f"{url}/readyz", timeout=5).json()["engines"]
    assert "wenet-zh: downloading" in clone.log and "xtts-v2: downloading" not in clone.log
    assert engines["recognizer.zh"]["name"] == engines["recognizer.en"]["name"] == "wenet"
    assert engines["synthesizer.en"]["name"] == "xtts" and "api.openai.com" in clone.log


def test_models_are_installed_by_their_names(clone: Clone, tmp_path: Path) -> None:
    clone = clone.with_home(tmp_path / "home")
    command = block(".venv/bin/mirrorchat models install xtts").strip()
    refused = clone.run(f"{command} </dev/null")
    assert refused.returncode == 1 and "the licences of xtts-v2, wenet-zh, wenet-en must be accepted" in refused.stdout


def make_stick(folder: Path) -> Path:
    """Return a folder with the files that the published models consist of, tiny."""
    stick = folder / "stick"
    codes: dict[str, Code] = {"wenet-zh": "zh", "wenet-en": "en"}
    make_checkpoint(folder / "made")
    pickled_copy(folder / "made", stick / "xtts-v2")
    for name, code in codes.items():
        checkpoint = write_trained_checkpoint(folder / code, code)
        archive = archive_of({file.name: file.read_bytes() for file in checkpoint.iterdir()})
        (stick / RELEASES[name].files[0].name).write_bytes(archive)
    return stick


def test_the_packages_of_the_system_are_those_of_the_image() -> None:
    """scripts/check_dockerfile.py shows that they are enough on Debian."""
    (command,) = (text for _, text in BLOCKS if text.startswith("sudo apt install") and text.count("\n") == 1)
    named = command.split()[3:]
    assert len(named) == 3 and set(named) <= set(read("deploy/Dockerfile").split())


@pytest.mark.parametrize("name", ["docs/clients.md", "docs/zh/clients.md"])
def test_librechat_and_the_others_are_sent_to_routes_of_the_server(name: str) -> None:
    routes, base = openai_paths(), "http://127.0.0.1:9990"
    configuration = yaml.safe_load(block("speech:\n"))
    for part in configuration["speech"].values():
        assert part["openai"]["url"].removeprefix(base) in routes
        assert part["allowedAddresses"] == [base.removeprefix("http://")]
    (chat,) = configuration["endpoints"]["custom"]
    assert f"{chat['baseURL'].removeprefix(base)}/chat/completions" in routes
    endpoints = re.findall(r"`BASE(/[\w/]+)`", read(name))
    assert len(endpoints) == 3 and {f"/v1{path}" for path in endpoints} <= routes.keys()
    assert f"`{base}/v1`" in read(name)


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if is_configuration(language, text)])
def test_the_configuration_is_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(text, encoding="utf-8")
    settings = load_settings(environ={}, folder=tmp_path)
    names = [target.id for each in ast.parse(text).body for target in targets(each)]
    assert names and all(hasattr(settings, name.lower()) for name in names)


def test_the_example_is_a_configuration(clone: Clone, tmp_path: Path) -> None:
    clone = clone.with_home(tmp_path / "home")
    config = clone.folder / "config.py"
    try:
        assert clone.run(block("cp config.example.py")).returncode == 0
        assert load_settings(environ={}, folder=clone.folder) == load_settings(environ={}, folder=tmp_path)
    finally:
        config.unlink()


def targets(statement: ast.stmt) -> Iterator[ast.Name]:
    """Yield the names that a statement assigns to."""
    assigned = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    yield from (each for each in assigned if isinstance(each, ast.Name))


def test_wenets_package_is_the_commit_that_was_tried() -> None:
    assert INSTALL.endswith(block(".venv/bin/pip install git+").strip())


@pytest.mark.parametrize(
    ("name", "non_commercial"), [("docs/install.md", ": non-commercial"), ("docs/zh/install.md", "：非商业")]
)
def test_the_table_of_models_is_that_of_the_manifest(name: str, non_commercial: str) -> None:
    for release in RELEASES.values():
        size, licence = size_text(release.download_bytes), release.licence
        restriction = non_commercial if licence.terms.startswith("non-commercial") else ""
        line = rf"\| `{release.name}` \| .* \| {size} \| `{re.escape(licence.code)}`{restriction} \|"
        assert re.search(line, read(name)), release.name


# The command line


def test_the_command_line_asks_hears_and_says(clone: Clone) -> None:
    done = clone.run(block(".venv/bin/mirrorchat ask").replace("\n", " &&\n", 2))
    assert done.returncode == 0, done.stdout
    assert "What is the best way to learn a language\n" in done.stdout
    for name in ("answer.wav", "morning.wav"):
        assert (clone.folder / name).read_bytes()[:4] == b"RIFF"


def test_the_test_command_runs_tests(clone: Clone) -> None:
    # all tests would run this one again: a part of them shows that the command works
    run = clone.run(block("scripts/test\n").strip() + " -n 0 tests/unit/test_settings.py")
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout


def test_the_doctor_says_what_is_shown(clone: Clone) -> None:
    run = clone.run(block(".venv/bin/mirrorchat doctor"))
    assert run.returncode == 0, run.stdout
    for part in block("chat\n").split("..."):
        assert without_times(part) in without_times(run.stdout)


def without_times(text: str) -> str:
    return " ".join(re.sub(r"[\d.]+ m?s\b", "N", " ".join(text.split())).split())


def test_recordings_are_judged(clone: Clone, tmp_path: Path) -> None:
    clone = clone.with_home(tmp_path / "home")
    link_models(clone, {"whisper-base": whisper_folder()})
    recordings = clone.folder / "recordings"
    recordings.mkdir()
    rows = ["file\tlanguage\ttranscript\tspeaker"]
    for name, language, text, speaker in (
        ("question", "english", "What is the best way to learn a language?", "me"),
        ("question_zh", "chinese", "学习语言最好的方法是什么？", "me"),
        ("first", "english", "How long does it take to walk around the lake?", "ann"),
        ("second", "english", "Please tell me about this old city.", "ann"),
    ):
        example = ROOT / "examples" / f"{name}.wav"
        (recordings / f"{name}.wav").write_bytes(example.read_bytes() if example.exists() else say_wav(text))
        rows.append(f"{name}.wav\t{language}\t{text}\t{speaker}")
    (recordings / "recordings.tsv").write_text("\n".join(rows), encoding="utf-8")
    run = clone.run(block(".venv/bin/mirrorchat evaluate").strip() + " --answers 1 --synthesizer embedded")
    assert run.returncode == 0, run.stdout
    labels = [re.split(r"\s{2,}", row.strip())[0] for row in block("                 ").splitlines()]
    assert labels[0] == "chinese" and len(labels) > 10
    for label in labels:
        assert label in run.stdout


def test_keys_are_made(clone: Clone) -> None:
    made = clone.run(block(".venv/bin/mirrorchat key"))
    found = re.match(r"key   (\S+)\nhash  (sha256:\S+)\n", made.stdout)
    assert found and hashed(found[1]) == found[2]
    assert f'write the hash into {ROOT}/config.py: api_keys = ["{found[2]}"]' in made.stdout


# Deployment


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


def test_the_containers_are_started_as_compose_says() -> None:
    export, command = block("export MIRRORCHAT_API_KEYS").splitlines()
    text = read("deploy/compose.yaml")
    assert f"#   {command}\n" in text and "${MIRRORCHAT_API_KEYS:?" in text
    assert export.startswith("export MIRRORCHAT_API_KEYS=sha256:")
    services = yaml.safe_load(text)["services"].values()
    assert any("cpu" in service.get("profiles", []) for service in services)


# What holds for all documents


def is_not_run(text: str, start: str) -> bool:
    return text == start if start.endswith("\n") else text.startswith(start)


def test_no_block_is_left_out() -> None:
    calls = re.findall(r'block\("([^"]+)"\)', Path(__file__).read_text(encoding="utf-8"))
    run = [start.replace("\\n", "\n").replace("\\\\", "\\") for start in calls]
    commands = [text for language, text in BLOCKS if language != "text" and not is_configuration(language, text)]
    others = [text for text in commands if not any(is_not_run(text, start) for start in NOT_RUN)]
    assert [text for text in others if not any(text.startswith(start) for start in run)] == []


def test_what_is_not_run_stands_in_the_documents() -> None:
    for start in NOT_RUN:
        assert [text for _, text in BLOCKS if is_not_run(text, start)], start


@pytest.mark.parametrize("name", DOCUMENT_NAMES)
def test_code_stands_in_blocks_with_a_language(name: str) -> None:
    """So none of it escapes the tests: every fence has a language, and no code is marked by indentation alone."""
    assert {language for language, _ in blocks_of(name)} <= {"sh", "python", "text", "json"}
    outside = re.sub(BLOCK, "", read(name))
    assert "```" not in outside
    assert not re.search(r"\n\n    \S", outside)


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED)
def test_translations_have_the_same_blocks_tables_and_sections(english: str, chinese: str) -> None:
    """So what is run of the one is true of the other; and what is told in one is told in the other."""
    assert blocks_of(chinese) == blocks_of(english)
    shapes = []
    for name in (english, chinese):
        lines = re.sub(BLOCK, "", read(name)).splitlines()
        headings = [line.partition(" ")[0] for line in lines if line.startswith("#")]
        rows = [line.count("|") for line in lines if line.startswith("|")]
        shapes.append((headings, rows))
    assert shapes[0] == shapes[1]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    headings = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENT_NAMES)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"(?:\]\(|src=\")([^)\"]+)", read(name).replace("\n", " ")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("name", [name for name in DOCUMENT_NAMES if name != "CHANGELOG.md"])
def test_the_files_that_are_named_exist(name: str) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for named in re.findall(r"(?<![\w/.<-])((?:\w+/)*\w+\.(?:py|js))\b", read(name)):
        assert named in OWN_FILES or any(f"/{path}".endswith(f"/{named}") for path in listed), named


def test_every_status_of_an_error_is_told() -> None:
    told = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", read("docs/http_api.md"), re.MULTILINE)
            for number in row.split(", ")}  # fmt: skip
    assert told == {error.status for error in errors(MirrorChatError) if error is not ClientGone}


def errors(tree: type[MirrorChatError]) -> Iterator[type[MirrorChatError]]:
    yield tree
    for branch in tree.__subclasses__():
        yield from errors(branch)


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= 200
