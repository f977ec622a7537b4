"""A caller's connection on which no thread waits without a deadline, whether for the caller's data or to send it some.

A write of a stream waits until the caller has taken it (`paced`). What the caller does not take at once of any other
answer stays in `unsent`: the worker's loop sends it, and the thread is free.
"""

import errno
import fcntl
import select
import socket
import struct
import termios
import time
from contextlib import suppress

WRITE_BYTES = 65_536  # of one write, which must end within SEND_DEADLINE_S: 1.4 s of wav
SEND_DEADLINE_S = 7.0  # a listener plays as much in a second or two; the cut comes within 10 s of nothing taken
STALL_S = 9.0  # between two reads of a body

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing drops what was not taken and resets the connection


class TimedSocket(socket.socket):
    """The connection `accepted`, which it takes over. `expired` tells whether a write took too long."""

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self.paced = False
        self.expired = False
        self.held = 0  # bytes of a rejected body that come before `unsent` is sent
        self.unsent = bytearray()
        self.read_by: float | None = None  # the end of all reads, by time.monotonic(); None lets the caller wait
        self._sent = 0  # bytes that the kernel has
        self._taken = 0  # bytes of them that the caller has, and when it took the last one
        self._taken_at = time.monotonic()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive data. Raises TimeoutError after `read_by`, and when nothing comes for STALL_S."""
        if self.read_by is not None:
            left_s = min(STALL_S, self.read_by - time.monotonic())
            if left_s <= 0 or not self._wait(select.POLLIN, left_s):
                raise TimeoutError
        return super().recv(size, flags)

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        """Send all of `data`, as `sendall` does, and return its size."""
        self.sendall(data)
        return len(data)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Send `data`: all of it if `paced`, else what the caller takes at once, if not `held`. The rest is `unsent`.

        Raises ConnectionResetError when the caller takes fewer than WRITE_BYTES within SEND_DEADLINE_S.
        """
        if not self.paced:
            self.unsent += data
            if not self.held:
                self.push()
            return
        for start in range(0, len(data), WRITE_BYTES):
            self._send_piece(data[start : start + WRITE_BYTES])

    def push(self) -> int:
        """Send what the caller takes now of `unsent`; return its size."""
        size = len(self.unsent)
        with suppress(BlockingIOError):
            while self.unsent:
                del self.unsent[: self._send_some(bytes(self.unsent[:WRITE_BYTES]))]
        return size - len(self.unsent)

    def takes_nothing(self) -> bool:
        """Return whether the caller has left what the kernel wants to send it for SEND_DEADLINE_S.

        The kernel takes a few megabytes of answers for a caller who reads none of them.
        """
        now = time.monotonic()
        left = self.untaken()
        if not left or self._sent - left != self._taken:
            self._taken, self._taken_at = self._sent - left, now
        return now - self._taken_at >= SEND_DEADLINE_S

    def untaken(self) -> int:
        """Return how many bytes the kernel still has for the caller."""
        left: int = struct.unpack("i", fcntl.ioctl(self, termios.TIOCOUTQ, bytes(4)))[0]
        return left

    def cut(self) -> None:
        """End the connection of a caller who takes nothing; closing will drop what is unsent, in the kernel, too."""
        self.expired = True
        with suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.shutdown(socket.SHUT_RDWR)

    def _send_piece(self, piece: bytes) -> None:
        limit = time.monotonic() + SEND_DEADLINE_S
        while piece:
            try:
                piece = piece[self._send_some(piece) :]
            except BlockingIOError:
                left_s = limit - time.monotonic()
                if left_s <= 0 or not self._wait(select.POLLOUT, left_s):
                    self.cut()
                    raise ConnectionResetError(errno.ECONNRESET, "the caller takes nothing") from None

    def _send_some(self, data: bytes) -> int:
        try:
            size = super().send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:  # gunicorn would log another one with its frames
            raise ConnectionResetError(errno.ECONNRESET, "the connection is lost") from error
        self._sent += size
        return size

    def _wait(self, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self, event)
        return bool(poll.poll(1000 * seconds))
