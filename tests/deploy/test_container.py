"""deploy/Dockerfile and compose.yaml, as far as reading them goes; scripts/check_dockerfile.py executes the former."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile import DOCKERFILE, read
from support.places import ROOT
from support.running_server import RunningServer, free_port

from mirrorchat.access.chat_apis import CHAT_VARIABLES
from mirrorchat.settings import Settings, load_settings

DEPLOY = ROOT / "deploy"
STAGES = read()
IMAGE = STAGES[-1]
BUILD = STAGES[0]
ENVIRON = {name: value for each in IMAGE.instructions if each.word == "ENV" for name, value in each.pairs.items()}
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = {name: service for name, service in SERVICES.items() if name.startswith("mirrorchat-")}
PROXIES = {name: service for name, service in SERVICES.items() if name.startswith("nginx-")}
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def with_defaults(text: str) -> str:
    """Return a text of compose.yaml with the defaults of its variables."""
    return VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "", text)


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return what a service mounts, by the place in the container."""
    pairs = [with_defaults(volume).removesuffix(":ro").rpartition(":") for volume in service["volumes"]]
    return {place: source for source, _, place in pairs}


def test_what_is_copied_is_there_and_nothing_else_is_sent_to_the_build() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    sources = [
        source
        for stage in STAGES
        for each in stage.instructions
        if each.word == "COPY" and "from" not in each.options
        for source in each.words[:-1]
    ]
    assert sources and all(
        any(name == source or name.startswith(f"{source}/") for name in listed) for source in sources
    )
    assert sorted(sources) == sorted(line[1:] for line in ignore if line.startswith("!"))
    assert "*" in ignore  # so that neither config.py nor a key can get into a layer


def test_every_base_has_its_digest_which_is_kept_fresh() -> None:
    bases = [stage.image for stage in STAGES] + [service["image"] for service in PROXIES.values()]
    assert len(bases) == 4 and all(re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", base) for base in bases)
    assert len(set(bases)) == 2  # the stages of the image have one base, and both proxies are the same
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert [each["package-ecosystem"] for each in updates] == ["docker", "docker-compose"]
    assert all((ROOT / each["directory"].lstrip("/")) == DEPLOY for each in updates)


def test_the_image_holds_no_secret_and_does_not_run_as_root() -> None:
    users = [each.rest for each in IMAGE.instructions if each.word == "USER"]
    assert len(users) == 1 and users[0] not in ("0", "root")
    after = IMAGE.instructions[IMAGE.instructions.index(IMAGE.last("USER")) :]
    assert {each.word for each in after}.isdisjoint({"RUN", "COPY"})
    names = [
        name for stage in STAGES for each in stage.instructions if each.word in ("ARG", "ENV") for name in each.pairs
    ]
    assert "EXTRAS" in names and not [name for name in names if re.search("KEY|SECRET|TOKEN|PASS", name)]


def test_torch_is_the_one_that_setup_pins() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    pin = next(line for line in setup["options.extras_require"]["full"].splitlines() if line.startswith("torch=="))
    assert any(f" {pin};" in each.rest for each in BUILD.instructions if each.word == "RUN")


def test_ports_and_volumes_are_those_of_the_configuration() -> None:
    port = str(Settings().port)
    assert IMAGE.last("EXPOSE").rest == ENVIRON["MIRRORCHAT_PORT"] == port
    assert f"server 127.0.0.1:{port};" in (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    volume = IMAGE.last("VOLUME").rest
    home = Path(ENVIRON["HOME"])
    for folder in (Settings().models_dir, Settings().voices_dir):
        assert (home / folder.relative_to(Path.home())).is_relative_to(volume)
    assert f"--home-dir {home} " in next(each.rest for each in IMAGE.instructions if "useradd" in each.rest)
    config = str(Path(IMAGE.last("WORKDIR").rest) / "config.py")
    for service in SERVERS.values():
        assert mounts(service)[volume] in COMPOSE["volumes"] and mounts(service)[config] == "/dev/null"
        assert [with_defaults(each).rpartition(":")[2] for each in service["ports"]] == ["80", "443"]


def test_the_command_serves_with_the_configuration_that_is_copied() -> None:
    command = IMAGE.last("CMD").command
    assert command[0] == "gunicorn" and (ROOT / command[-1]).is_file()
    assert command[-1] in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8")


def test_the_health_check_tells_a_ready_server(embedded_server: RunningServer) -> None:
    command = IMAGE.last("HEALTHCHECK").command
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for port, healthy in ((embedded_server.port, True), (free_port(), False)):
        done = subprocess.run(command, env=environ | {"MIRRORCHAT_PORT": str(port)}, capture_output=True, timeout=30)
        assert (done.returncode == 0) == healthy, done.stderr


def test_there_is_nothing_but_servers_and_their_proxies() -> None:
    assert SERVERS and PROXIES and SERVERS.keys() | PROXIES.keys() == SERVICES.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"] and not service.get("privileged")
    assert service["mem_limit"] and service["pids_limit"] and service["profiles"] == [name.rpartition("-")[2]]
    assert str(service.get("user", IMAGE.last("USER").rest)).partition(":")[0] not in ("0", "root")
    assert not [mount for mount in mounts(service).values() if "docker.sock" in mount]


def test_nginx_is_the_only_way_in_and_nobody_gets_in_without_a_key() -> None:
    for name, service in PROXIES.items():
        server = name.replace("nginx", "mirrorchat")
        assert service["network_mode"] == f"service:{server}" and service["depends_on"] == [server]
        assert "ports" not in service and mounts(service)["/etc/nginx/conf.d/default.conf"] == "./nginx.conf"
        assert mounts(service)["/etc/nginx/mirrorchat"] in COMPOSE["volumes"]
    for service in SERVERS.values():
        assert service["environment"]["MIRRORCHAT_API_KEYS"].startswith("${MIRRORCHAT_API_KEYS:?")
        assert service["sysctls"]["net.ipv4.ip_unprivileged_port_start"] == "0"  # nginx listens at 80 and is not root
        assert "MIRRORCHAT_HOST" not in service["environment"]  # loopback: nginx shares its network


def test_the_names_of_the_server_may_be_given_in_the_environment(tmp_path: Path) -> None:
    for service in SERVERS.values():
        text = service["environment"]["MIRRORCHAT_ALLOWED_HOSTS"]
        assert text.startswith("${MIRRORCHAT_ALLOWED_HOSTS:-}")  # passed on as it is
        for given, names in ((with_defaults(text), ()), ("Speech.example,[::1]", ("speech.example", "::1"))):
            environ = {"MIRRORCHAT_ALLOWED_HOSTS": given}
            assert load_settings(environ=environ, folder=tmp_path).allowed_hosts == names


def test_the_chat_api_may_be_given_in_the_environment(tmp_path: Path) -> None:
    """Each variable is passed on, and is blank by default, which counts as unset."""
    for service in SERVERS.values():
        environ = {name: with_defaults(service["environment"][name]) for name in CHAT_VARIABLES}
        assert load_settings(environ=environ, folder=tmp_path).chat_source == ""
    unit = (DEPLOY / "mirrorchat.service").read_text(encoding="utf-8")
    assert re.findall(r"^EnvironmentFile=-(.+)$", unit, re.MULTILINE) == ["/etc/mirrorchat.env"]
    assert "`/etc/mirrorchat.env`" in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_what_nginx_writes_to_is_in_memory() -> None:
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    written = re.findall(r"^\s*(?:access|error)_log (\S+) ", text, re.MULTILINE)
    for service in PROXIES.values():
        places = [entry.partition(":")[0] for entry in service["tmpfs"]]
        assert written and all(any(Path(file).is_relative_to(place) for place in places) for file in written)


def test_only_the_gpu_profile_takes_a_gpu_and_the_cpu_one_torchs_cpu_build() -> None:
    cpu, gpu = SERVERS["mirrorchat-cpu"], SERVERS["mirrorchat-gpu"]
    assert "deploy" not in cpu and cpu["build"]["args"]["TORCH_INDEX"].endswith("/cpu")
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    for service in (cpu, gpu):
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert context == ROOT and (context / service["build"]["dockerfile"]) == DOCKERFILE
        assert set(service["build"].get("args", {})) <= set(_arguments())


def _arguments() -> list[str]:
    return [name for each in BUILD.instructions if each.word == "ARG" for name in each.pairs]


def test_answers_have_time_to_finish() -> None:
    text = (ROOT / "mirrorchat" / "server" / "gunicorn_conf.py").read_text(encoding="utf-8")
    graceful = re.search(r"^graceful_timeout = (\d+)$", text, re.MULTILINE)
    assert graceful
    for service in SERVERS.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > int(graceful[1])


def test_an_instruction_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM debian AS first\nRUN echo a \\\n  && echo b\n# no\nCMD ["x", "y"]\n')
    (stage,) = read(tmp_path / "Dockerfile")
    assert (stage.image, stage.name) == ("debian", "first")
    assert stage.last("RUN").command == ["/bin/sh", "-c", "echo a    && echo b"]
    assert stage.last("CMD").command == ["x", "y"]
    (tmp_path / "Dockerfile").write_text("FROM debian\nADD https://h/x /\n")
    with pytest.raises(ValueError, match="'ADD' is not one of FROM"):
        read(tmp_path / "Dockerfile")
