"""The body of a request while it arrives, with deadlines and a limit per address.

Slow bodies occupy threads: those that one address may send at the same time are bounded (`PerAddress`), and a body must
arrive within UPLOAD_DEADLINE_S. nginx, which buffers bodies, has a stricter limit between two reads.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException

from mirrorchat.access.address_limits import PerAddress
from mirrorchat.errors import InvalidRequest, TooManyPartialRequests, UploadTimeout
from mirrorchat.server.timed_socket import STALL_S, TimedSocket

UPLOAD_DEADLINE_S = 30.0  # of a whole body
LINGER_BYTES = 32 * 1024 * 1024  # of a rejected upload that still arrives: closing would reset the connection
SMALL_CHUNKS = 10_000  # in one body: each costs as much as a large one
CHUNK_BYTES = 256  # on average, of what has more chunks than that
TURN_S = 0.5  # a body waits so long for others of its address, which may be just as good


class IncomingBody(Body):  # type: ignore[misc]
    """The body of `request`, which arrives on `connection`. It counts in `partial` from its first read to its end."""

    def __init__(self, request: Any, connection: TimedSocket, partial: PerAddress, address: str | None) -> None:
        super().__init__(request.body.reader)
        if isinstance(self.reader, ChunkedReader):
            self.reader.parser = _checked(self.reader.parser)
        self._request = request
        self._connection = connection
        self._partial = partial
        self._address = address
        self._counted = False
        self._arrived = False

    def _read_reader(self, size: int) -> bytes:
        """Read on. Raises UploadTimeout and TooManyPartialRequests."""
        if self._arrived:
            return b""
        if not self._counted and not self.is_here():
            self._begin()
        try:
            data: bytes = super()._read_reader(size)
        except TimeoutError:
            limits = f"{UPLOAD_DEADLINE_S:g} s, or stopped for {STALL_S:g} s"
            raise UploadTimeout(f"the upload took longer than {limits}") from None
        except (ParseException, ValueError, OverflowError):
            self.failed = True
            raise InvalidRequest("the chunks of the body are malformed, or too small") from None
        self._arrived = not data or self._left() == 0
        if self._arrived:
            self.release()
        return data

    def _begin(self) -> None:
        if not self._partial.take(self._address, wait_s=TURN_S):
            self.failed = True
            raise TooManyPartialRequests("too many requests of this address are still arriving", retry_after_s=1)
        self._counted = True
        self._connection.read_by = time.monotonic() + UPLOAD_DEADLINE_S

    def release(self) -> None:
        """Stop counting: the body has arrived, or nobody reads it."""
        self._connection.read_by = None
        if self._counted:
            self._counted = False
            self._partial.release(self._address)

    def is_here(self) -> bool:
        """Return whether the rest of the body can be read without waiting for the caller."""
        left = self._left()
        return not self.failed and (self._arrived or (left is not None and left <= self._buffered()))

    def _left(self) -> int | None:
        """Return the bytes to be read; None for a body in chunks."""
        return self.reader.length if isinstance(self.reader, LengthReader) else None

    def _buffered(self) -> int:
        size: int = self.reader.unreader.buf.getbuffer().nbytes
        return size

    def leave(self) -> None:
        """Let the connection end after the response if the body has not arrived: nobody reads it.

        The response waits for the body: some clients and proxies lose one that comes while they send.
        """
        if self.is_here():
            return
        self._request.force_close()
        left = self._left()
        if left is not None and left <= LINGER_BYTES and not self.failed:  # a slow one is not waited for again
            self._connection.held = left - self._buffered()


def _checked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the data of `chunks`. Raises ValueError for a body of very many very small ones."""
    size = 0
    for number, chunk in enumerate(chunks):
        size += len(chunk)
        if number > SMALL_CHUNKS and size < CHUNK_BYTES * number:
            raise ValueError("small chunks")
        yield chunk


def leave_body(environ: Mapping[str, Any]) -> None:
    """Read no more of the body of a request that is rejected.

    The worker's loop discards what the caller still sends, and then sends the error.
    """
    body = environ["wsgi.input"]
    if isinstance(body, IncomingBody):
        body.leave()
