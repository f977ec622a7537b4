"""X-Forwarded-For and -Proto: believed from trusted proxies, as far as they wrote them, and from nobody else."""

import ipaddress

import pytest
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st

from mirrorchat.access.trusted_proxies import Address, TrustedProxies, caller_network, caller_of, networks_of

TRUSTED = networks_of(["127.0.0.0/8", "::1", "10.1.0.0/16", "fd00::/8"])
PROXIES = st.sampled_from(["127.0.0.1", "::1", "10.1.2.3", "fd00::5"])
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda address: (
        not any(address in network for network in TRUSTED)
        and not (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped)
    )
)


def caller(peer: str, forwarded_for: str = "", proto: str = "") -> tuple[str, str]:
    return caller_of(peer, forwarded_for, proto, TRUSTED)


def test_the_examples() -> None:
    assert caller("127.0.0.1") == ("127.0.0.1", "")
    assert caller("127.0.0.1", "192.0.2.1", "https") == ("192.0.2.1", "https")
    assert caller("", "192.0.2.1") == ("192.0.2.1", "")  # a Unix socket's peer has no address
    assert caller("127.0.0.1", "6.6.6.6, 192.0.2.1, 10.1.0.9") == ("192.0.2.1", "")
    assert caller("127.0.0.1", "10.1.0.9") == ("10.1.0.9", "")  # a proxy asks for itself
    assert caller("::ffff:127.0.0.1", "[2001:db8::1]:443") == ("2001:db8::1", "")
    assert caller("127.0.0.1", "192.0.2.1:5000") == ("192.0.2.1", "")
    assert caller("192.0.2.9", "127.0.0.1", "https") == ("192.0.2.9", "")
    assert caller("127.0.0.1", "not an address") == caller("127.0.0.1", "::1, ,") == ("127.0.0.1", "")
    assert caller("127.0.0.1", "192.0.2.1", "javascript") == ("192.0.2.1", "")
    assert caller("127.0.0.1", "192.0.2.1, 10.1.0.9", "https, http") == ("192.0.2.1", "https")
    assert caller("127.0.0.1", "192.0.2.1", "https, http") == ("192.0.2.1", "http")


@given(addresses, st.lists(PROXIES, max_size=5), PROXIES, st.text(max_size=80))
def test_what_a_caller_writes_itself_changes_nothing(
    address: Address, chain: list[str], peer: str, written: str
) -> None:
    honest = ", ".join([str(address), *chain])
    assert caller(peer, honest)[0] == str(address)
    assert caller(peer, f"{written}, {honest}")[0] == str(address)


@given(addresses, st.text(max_size=200), st.text(max_size=40))
def test_only_trusted_proxies_are_believed(address: Address, header: str, proto: str) -> None:
    assert caller(str(address), header, proto) == (str(address), "")


@given(PROXIES, st.text(max_size=300), st.text(max_size=40))
def test_a_bad_header_raises_nothing_and_gives_an_address(peer: str, header: str, proto: str) -> None:
    address, scheme = caller(peer, header, proto)
    ipaddress.ip_address(address)
    assert scheme in ("", "http", "https")


def test_a_long_chain_is_read_to_a_bound() -> None:
    assert caller("127.0.0.1", "192.0.2.1" + ", 10.1.0.9" * 31)[0] == "192.0.2.1"
    assert caller("127.0.0.1", "192.0.2.1" + ", 10.1.0.9" * 100_000)[0] == "10.1.0.9"


def test_one_caller_is_an_address_or_a_64_network() -> None:
    assert caller_network("192.0.2.1") == "192.0.2.1"
    assert caller_network("2001:db8:1:2:3:4:5:6") == caller_network("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert caller_network("2001:db8:1:3::9") != caller_network("2001:db8:1:2::9")
    assert caller_network("") == "" and len(caller_network("x" * 1000)) == 64


@pytest.mark.parametrize(("peer", "seen"), [("127.0.0.1", "https 192.0.2.1"), ("192.0.2.5", "http 192.0.2.5")])
def test_the_application_sees_the_caller(peer: str, seen: str) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", "seen", lambda: f"{request.scheme} {request.remote_addr}")
    app.wsgi_app = TrustedProxies(app.wsgi_app, TRUSTED)  # type: ignore[method-assign]
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    response = app.test_client().get("/", headers=forwarded, environ_overrides={"REMOTE_ADDR": peer})
    assert response.text == seen
