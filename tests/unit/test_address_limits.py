"""What one address may hold at the same time."""

import threading

from mirrorchat.access.address_limits import PerAddress


def test_an_address_holds_as_much_as_the_limit() -> None:
    limit = PerAddress(2)
    assert limit.take("192.0.2.1") and limit.take("192.0.2.1")
    assert not limit.take("192.0.2.1")
    assert limit.take("192.0.2.2")
    limit.release("192.0.2.1")
    assert limit.take("192.0.2.1")


def test_a_trusted_proxy_holds_what_it_wants() -> None:
    limit = PerAddress(1)
    assert all(limit.take(None) for _ in range(100))
    limit.release(None)


def test_addresses_that_hold_nothing_are_forgotten() -> None:
    limit = PerAddress(1)
    for number in range(100):
        address = f"2001:db8::{number}"
        assert limit.take(address) and not limit.take(address)
        limit.release(address)
    assert not limit._held


def test_a_wait_ends_with_a_release() -> None:
    limit, taken = PerAddress(1), threading.Event()
    assert limit.take("192.0.2.1")
    assert not limit.take("192.0.2.1", wait_s=0.05)

    def wait() -> None:
        if limit.take("192.0.2.1", wait_s=20.0):
            taken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    limit.release("192.0.2.1")
    waiter.join(20)
    assert taken.is_set()
