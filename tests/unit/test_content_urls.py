"""The URLs that a chat's messages may hold for the chat API to fetch."""

import socket
from collections.abc import Sequence
from typing import Any

import pytest

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import InvalidField
from mirrorchat.openai.content_urls import NAMES_LIMIT, URLS_LIMIT, check_names, public_names

PUBLIC = (
    "https://pictures.example/a/cat.png?size=2#top", "HTTPS://Pictures.Example:8443", "https://93.184.216.34/cat.png",
    "https://[2606:2800:220:1::1]/cat.png", "https://xn--bcher-kva.example/\u732b.png", "https://a-b.example.",
    "data:image/png;base64,AAAA", "DATA:image/png;base64,AAAA",
)  # fmt: skip
PRIVATE = (
    "https://127.0.0.1/", "https://127.0.0.1:8443/x", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
    "https://0177.0.0.1/", "https://127.0.0.1./", "https://0.0.0.0/", "https://10.1.2.3/", "https://172.16.0.1/",
    "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data/", "https://100.64.0.1/", "https://224.0.0.1/",
    "https://255.255.255.255/", "https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fd00::1]/",
    "https://[fec0::1]/", "https://[::ffff:127.0.0.1]/", "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/", "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "https://localhost/",
    "https://LOCALHOST./x", "https://api.localhost/", "https://printer.local/", "https://metadata.google.internal/",
    "https://router.home.arpa/", "https://home.arpa/", "https://intranet/", "https://ip6-localhost/",
)  # fmt: skip
MALFORMED = (
    "http://pictures.example/cat.png", "file:///etc/passwd", "ftp://pictures.example/", "gopher://127.0.0.1:70/",
    "blob:https://pictures.example/1", "//127.0.0.1/", "/cat.png", "cat.png", "", " https://pictures.example/",
    "https:/127.0.0.1/", "https:127.0.0.1/", "https:///127.0.0.1/", "https://", "https://a@127.0.0.1/",
    "https://127.0.0.1\\@pictures.example/", "https://pictures.example\\.evil.example/", "https://127.0.0.1%2f/",
    "https://%31%32%37.0.0.1/", "https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020.0.1/", "https://[::1",
    "https://[::g]/", "https://[fe80::1%25eth0]/", "https://256.1.1.1/", "https://1.2.3.4.5/", "https://0x/",
    "https://pictures.example:port/", "ht\ntps://pictures.example/", "https://pic\ttures.example/", "https://a..b/",
    "https://pictures.example/" + "a" * 9000,
)  # fmt: skip


def message_with(part: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "Hi"}, {"role": "user", "content": [{"type": "text", "text": "Look"}, part]}]


def image(url: object) -> list[dict[str, Any]]:
    return message_with({"type": "image_url", "image_url": {"url": url, "detail": "auto"}})


@pytest.mark.parametrize("url", PUBLIC)
def test_public_urls_pass(url: str) -> None:
    public_names(image(url), allow_private=False)


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_rejected_by_name_of_the_setting(url: str) -> None:
    with pytest.raises(InvalidField, match=r"messages\[1\]\.content: .*chat_private_urls = True") as caught:
        public_names(image(url), allow_private=False)
    assert caught.value.param == "messages" and url not in caught.value.message
    assert public_names(image(url), allow_private=True) == []


@pytest.mark.parametrize("url", MALFORMED)
def test_other_schemes_and_what_is_no_whole_url_are_rejected(url: str) -> None:
    with pytest.raises(InvalidField, match="URL"):
        public_names(image(url), allow_private=False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/cat.png", "http://nas/cat.png", "https://printer.local/"])
def test_the_setting_allows_private_addresses_without_https(url: str) -> None:
    assert public_names(image(url), allow_private=True) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1:70/", "https://a@b/"])
def test_the_setting_allows_no_other_scheme(url: str) -> None:
    with pytest.raises(InvalidField):
        public_names(image(url), allow_private=True)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": "https://127.0.0.1/"},
        {"type": "input_image", "image_url": "https://127.0.0.1/"},
        {"type": "video_url", "video_url": {"url": "https://127.0.0.1/"}},
        {"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}},
        {"type": "image", "source": {"type": "url", "url": "https://127.0.0.1/"}},
        {"type": "image", "image": "http://127.0.0.1/"},
        {"type": "video", "video": ["file:///a.png", "file:///b.png"]},
        {"type": "file", "file": {"file_url": "https://127.0.0.1/"}},
        {"type": "text", "text": "Look", "image_url": {"url": "https://127.0.0.1/"}},
    ],
)
def test_every_part_is_read_whatever_its_type(part: object) -> None:
    with pytest.raises(InvalidField):
        public_names(message_with(part), allow_private=False)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "Is http://127.0.0.1/ or file:///etc/passwd a URL?"},
        {"type": "refusal", "refusal": "I open no http://127.0.0.1/."},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
    ],
)
def test_what_is_no_url_passes(part: object) -> None:
    assert public_names(message_with(part), allow_private=False) == []


def test_names_are_looked_up_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [f"https://{number}.pictures.example/" for number in range(NAMES_LIMIT)] * 2
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in parts]}]
    names = public_names(messages, allow_private=False)
    assert names == [f"{number}.pictures.example" for number in range(NAMES_LIMIT)]
    with pytest.raises(InvalidField, match=f"more than {NAMES_LIMIT} hosts"):
        public_names([*messages, *image("https://one-more.example/")], allow_private=False)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.7"], ["fe80::1%eth0"], ["::1"]])
def test_a_name_that_leads_to_a_private_address_is_rejected(
    addresses: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, {"pictures.example": addresses})
    with pytest.raises(InvalidField, match="chat_private_urls"):
        check_names(["unknown.example", "pictures.example"], Context.after(10.0))


def test_a_public_name_and_one_that_is_unknown_here_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, {"pictures.example": ["93.184.216.34", "2606:2800:220:1::1"]})
    check_names(["pictures.example", "unknown.example"], Context.after(10.0))


def answer_with(monkeypatch: pytest.MonkeyPatch, known: dict[str, Sequence[str]]) -> None:
    """Let these names have these addresses: tests have no name server."""

    def getaddrinfo(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if name not in known:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(0, 0, 0, "", (address, 0)) for address in known[name]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_urls_are_counted_before_all_are_read() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://198.51.100.7/picture.png"}}
    message = {"role": "user", "content": [part] * (URLS_LIMIT + 1)}
    with pytest.raises(InvalidField, match="256 URLs"):
        public_names(
            [message, {"role": "user", "content": [{"image_url": {"url": "http://127.0.0.1/"}}]}], allow_private=True
        )
    assert public_names([message | {"content": [part] * URLS_LIMIT}], allow_private=True) == []
