"""Models from the hubs: through Hugging Face's own library and from ModelScope, with all that goes wrong."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="huggingface_hub, of the extra `full`, is not installed")

from huggingface_hub import constants
from support.hub_server import Fault, HubServer
from support.places import ROOT
from support.running_server import free_port

from mirrorchat.errors import SourceFailed
from mirrorchat.models import download as model_download
from mirrorchat.models import modelscope
from mirrorchat.models.download import Remote, download
from mirrorchat.models.hugging_face import HuggingFace
from mirrorchat.models.manifest import RELEASES, Release, ReleasedFile
from mirrorchat.models.modelscope import ModelScope, modelscope_endpoint

XTTS, WENET = RELEASES["xtts-v2"], RELEASES["wenet-zh"]
CONTENT = os.urandom(300_000)
FILE = ReleasedFile("model.pth", len(CONTENT))
KNOWN = ReleasedFile("model.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
HUB, SCOPE = XTTS.hugging_face.name, XTTS.modelscope.name


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """Return a server that stands for both hubs, with the file on each, and a cache of the hub's that is empty."""
    with HubServer() as server:
        for repository in (HUB, SCOPE):
            server.publish(repository, FILE.name, CONTENT)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"  # what HF_ENDPOINT sets at import
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setattr(model_download, "PAUSE_S", 0.01)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


def fetch(folder: Path, release: Release = XTTS, file: ReleasedFile = FILE) -> bytes:
    HuggingFace().fetch(release, file, folder)
    return (folder / file.name).read_bytes()


def test_a_file_comes_through_the_hub_s_redirect(server: HubServer, folder: Path) -> None:
    assert fetch(folder) == CONTENT
    revision = XTTS.hugging_face.revision
    assert f"HEAD /{HUB}/resolve/{revision}/model.pth" in server.requests
    assert server.sent["cdn", FILE.name] == len(CONTENT)
    asked = len(server.requests)
    assert fetch(folder) == CONTENT  # it is there: nothing is asked
    assert len(server.requests) == asked


def test_a_small_file_comes_from_the_hub_itself(server: HubServer, folder: Path) -> None:
    server.publish(HUB, "config.json", b"{}")
    assert fetch(folder, file=ReleasedFile("config.json", 2)) == b"{}"
    assert any(request.startswith("GET /api/resolve-cache/models/") for request in server.requests)


def test_a_broken_transfer_is_gone_on_with(server: HubServer, folder: Path) -> None:
    server.misbehave("cdn", FILE.name, Fault(cut_after=100_000), Fault(cut_after=100_000))
    assert fetch(folder) == CONTENT
    assert server.ranges == ["bytes=100000-", "bytes=200000-"]
    assert server.sent["cdn", FILE.name] == len(CONTENT)  # no byte came twice


def test_another_run_goes_on_where_one_gave_up(server: HubServer, folder: Path) -> None:
    server.misbehave("cdn", FILE.name, Fault(cut_after=120_000), *[Fault(status=503)] * 4)
    with pytest.raises(SourceFailed, match=r"model\.pth could not be downloaded: HTTP 503"):
        fetch(folder)
    assert fetch(folder) == CONTENT
    assert server.sent["cdn", FILE.name] == len(CONTENT)


def test_another_version_is_not_joined_to_the_old_one(server: HubServer, folder: Path) -> None:
    server.misbehave("cdn", FILE.name, Fault(cut_after=120_000), *[Fault(status=503)] * 4)
    with pytest.raises(SourceFailed):
        fetch(folder)
    other = os.urandom(len(CONTENT))
    server.publish(HUB, FILE.name, other)
    assert fetch(folder) == other
    assert server.ranges == ["bytes=120000-"] * 4


def test_a_server_without_ranges_is_asked_for_all(server: HubServer, folder: Path) -> None:
    server.misbehave("cdn", FILE.name, Fault(cut_after=100_000), Fault(ignores_range=True))
    assert fetch(folder) == CONTENT
    assert server.sent["cdn", FILE.name] == 100_000 + len(CONTENT)


def test_another_range_than_the_one_asked_for_is_refused(server: HubServer, folder: Path) -> None:
    server.misbehave("cdn", FILE.name, Fault(cut_after=100_000), Fault(shifts_range=1))
    with pytest.raises(SourceFailed, match="another range"):
        fetch(folder)
    assert fetch(folder) == CONTENT


@pytest.mark.parametrize("place", ["head", "cdn"])
def test_a_busy_hub_is_waited_for(server: HubServer, folder: Path, place: str) -> None:
    server.misbehave(place, FILE.name, Fault(status=429, retry_after_s=1))
    assert fetch(folder) == CONTENT


@pytest.mark.parametrize("place", ["head", "cdn"])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_told_at_once(server: HubServer, folder: Path, place: str, status: int) -> None:
    server.misbehave(place, FILE.name, Fault(status=status))
    with pytest.raises(SourceFailed, match=f"HTTP {status}"):
        fetch(folder)
    assert sum(request.startswith("GET /cdn") for request in server.requests) <= 1


def test_a_file_that_is_not_there_is_named(server: HubServer, folder: Path) -> None:
    with pytest.raises(SourceFailed, match=r"config\.json: HTTP 404"):
        fetch(folder, file=ReleasedFile("config.json", 10))


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server: HubServer, folder: Path) -> None:
    server.publish(HUB, FILE.name, CONTENT + b"more" * len(CONTENT))
    with pytest.raises(SourceFailed, match="bytes there, not"):
        fetch(folder)
    assert server.sent["cdn", FILE.name] == 0


def test_what_the_hub_says_of_its_size_is_held_against_the_bytes(server: HubServer, folder: Path) -> None:
    server.misbehave("head", FILE.name, Fault(claims=len(CONTENT) - 1))
    with pytest.raises(SourceFailed, match=f"{len(CONTENT)} bytes there, not {len(CONTENT) - 1}"):
        fetch(folder)


def test_damaged_bytes_are_noticed_and_not_kept(server: HubServer, folder: Path) -> None:
    server.misbehave("cdn", FILE.name, Fault(body=CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])))
    with pytest.raises(SourceFailed, match="damaged: its SHA-256"):
        fetch(folder)
    assert list(folder.iterdir()) == []
    assert fetch(folder) == CONTENT


def test_a_known_checksum_stands_above_the_hub_s(server: HubServer, folder: Path) -> None:
    known = ReleasedFile(FILE.name, len(CONTENT), "0" * 64)
    with pytest.raises(SourceFailed, match="not the released one"):
        fetch(folder, file=known)
    assert server.sent["cdn", FILE.name] == 0


def test_a_slow_drip_is_given_up(server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_download, "WINDOW_S", 0.2)
    server.misbehave("cdn", FILE.name, *[Fault(drip_s=0.05)] * 4)
    with pytest.raises(SourceFailed, match="slower than 1000 bytes a second"):
        fetch(folder)


def test_silence_is_given_up(server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_download, "SILENCE_S", 0.1)
    server.misbehave("cdn", FILE.name, *[Fault(drip_s=5.0)] * 4)
    with pytest.raises(SourceFailed, match="the server sends nothing"):
        fetch(folder)


def test_more_than_was_announced_is_not_written(server: HubServer, folder: Path) -> None:
    remote = Remote(FILE.name, f"{server.url}/cdn/{HUB}/{FILE.name}", limit_bytes=1000, version="1")
    with pytest.raises(SourceFailed, match=f"{len(CONTENT)} bytes there, not at most 1000"):
        download(remote, folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) == 0


def test_a_file_that_has_shrunk_is_begun_again(server: HubServer, folder: Path) -> None:
    remote = Remote(FILE.name, f"{server.url}/cdn/{HUB}/{FILE.name}", limit_bytes=10**6, version="1")
    server.misbehave("cdn", FILE.name, Fault(cut_after=200_000), *[Fault(status=500)] * 4)
    with pytest.raises(SourceFailed):
        download(remote, folder)
    server.publish(HUB, FILE.name, CONTENT[:1000])
    assert download(remote, folder).read_bytes() == CONTENT[:1000]


def test_a_hub_that_is_away_is_told(folder: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    template = gone + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(SourceFailed, match="does not answer"):
        fetch(folder)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", gone)
    with pytest.raises(SourceFailed, match="does not answer"):
        ModelScope().fetch(XTTS, FILE, folder)
    with pytest.raises(SourceFailed, match="connection failed"):
        ModelScope().fetch(XTTS, KNOWN, folder)
    with pytest.raises(SourceFailed, match="does not answer"):
        ModelScope().fetch(WENET, WENET.files[0], folder)


def test_modelscope_has_models_and_data_sets(server: HubServer, folder: Path) -> None:
    server.misbehave("scope", FILE.name, Fault(cut_after=100_000))
    ModelScope().fetch(XTTS, FILE, folder)
    assert (folder / FILE.name).read_bytes() == CONTENT
    assert server.requests[:2] == [
        f"GET /api/v1/models/{SCOPE}/repo/files?Revision=master&Recursive=true",
        f"GET /models/{SCOPE}/resolve/master/model.pth",
    ]
    server.publish(WENET.modelscope.name, WENET.files[0].name, b"archive")
    ModelScope().fetch(WENET, WENET.files[0], folder)
    assert (folder / WENET.files[0].name).read_bytes() == b"archive"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(status=500), "its list of files: HTTP 500"),
        (Fault(body=b"<html>"), "cannot be read"),
        (Fault(body=b'{"Data": null}'), "cannot be read"),
        (Fault(body=b"[" * 100_000), "cannot be read"),
        (Fault(body=b'{"Data": []}'), "it has no wenetspeech"),
        (Fault(body=b" " * 5_000_000), "too long"),
        (
            Fault(body=b'{"Data": [{"Key": "wenetspeech_u2pp_conformer_exp.tar.gz", "Url": "file:///etc/passwd"}]}'),
            "not encrypted",
        ),
    ],
)
def test_a_bad_listing_is_refused(server: HubServer, folder: Path, fault: Fault, message: str) -> None:
    server.misbehave("listing", WENET.modelscope.name, fault)
    with pytest.raises(SourceFailed, match=message):
        ModelScope().fetch(WENET, WENET.files[0], folder)


def test_a_listing_that_drips_is_given_up(server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelscope, "LISTING_LIMIT_S", 0.1)
    server.misbehave("listing", WENET.modelscope.name, Fault(body=b" " * 1000, drip_s=0.02))
    with pytest.raises(SourceFailed, match="its list of files does not arrive"):
        ModelScope().fetch(WENET, WENET.files[0], folder)


def test_modelscope_s_address_is_that_of_its_own_client() -> None:
    assert modelscope_endpoint({}) == "https://modelscope.cn"
    assert modelscope_endpoint({"MODELSCOPE_DOMAIN": "www.modelscope.ai"}) == "https://www.modelscope.ai"
    assert modelscope_endpoint({"MODELSCOPE_ENDPOINT": "http://mirror:80/"}) == "http://mirror:80"


FETCH = """
import sys
from pathlib import Path
from mirrorchat.errors import SourceFailed
from mirrorchat.models.manifest import RELEASES, ReleasedFile
from mirrorchat.models.sources import SOURCES
try:
    SOURCES[sys.argv[2]]().fetch(RELEASES["xtts-v2"], ReleasedFile("model.pth", 300_000), Path(sys.argv[1]))
except SourceFailed as error:
    print(error)
"""


def fetch_elsewhere(folder: Path, source: str, **environ: str) -> str:
    """Fetch in a process of its own, as the hub's library reads its variables once; return what failed."""
    run = subprocess.run(
        [sys.executable, "-c", FETCH, str(folder), source],
        cwd=ROOT, env=os.environ | environ, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return run.stdout.strip()


def test_the_hub_s_variables_are_honoured(server: HubServer, folder: Path, tmp_path: Path) -> None:
    hub = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub"), "MODELSCOPE_ENDPOINT": server.url}
    for source in ("huggingface", "modelscope"):
        assert fetch_elsewhere(folder, source, HF_HUB_OFFLINE="1", **hub) == "HF_HUB_OFFLINE is set"
    assert server.requests == []
    assert fetch_elsewhere(folder, "huggingface", **hub) == ""
    assert (folder / FILE.name).read_bytes() == CONTENT


def test_a_file_in_the_hub_s_cache_is_not_fetched_again(server: HubServer, folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "hub" / f"models--{HUB.replace('/', '--')}" / "snapshots" / XTTS.hugging_face.revision
    snapshot.mkdir(parents=True)
    (snapshot / FILE.name).write_bytes(CONTENT)
    assert fetch_elsewhere(folder, "huggingface", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub")) == ""
    assert (folder / FILE.name).read_bytes() == CONTENT


def test_proxies_are_honoured(server: HubServer, folder: Path, tmp_path: Path) -> None:
    proxy = {"http_proxy": f"http://127.0.0.1:{free_port()}", "no_proxy": "", "NO_PROXY": ""}
    hub = {"HF_ENDPOINT": "http://hub.invalid", "MODELSCOPE_ENDPOINT": "http://scope.invalid"}
    failed = fetch_elsewhere(folder, "huggingface", HF_HOME=str(tmp_path / "hub"), **proxy, **hub)
    assert "does not answer" in failed
    assert "the proxy does not answer" in fetch_elsewhere(folder, "modelscope", **proxy, **hub)
    for source in ("huggingface", "modelscope"):  # of a kind that needs a further package
        socks = {"all_proxy": f"socks5h://127.0.0.1:{free_port()}", "http_proxy": "", "no_proxy": ""}
        assert fetch_elsewhere(folder, source, HF_HOME=str(tmp_path / "hub"), **socks, **hub)
    through = proxy | {"http_proxy": server.url}  # it is asked as a proxy is: with a whole address
    fetch_elsewhere(folder, "modelscope", **through, **hub)
    assert any("http://scope.invalid/api/v1/models/" in request for request in server.requests)
