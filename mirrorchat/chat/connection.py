"""The connection to a chat API: the request, and a socket that another thread can shut down."""

import contextlib
import functools
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from requests.utils import get_auth_from_url
from urllib3.connection import HTTPConnection, HTTPSConnection

from mirrorchat import __version__
from mirrorchat.chat.stream import AnswerFailed
from mirrorchat.errors import ChatFault
from mirrorchat.settings import ChatApi

_MARGIN_S = 5.0  # past the last of the limits that the caller's thread watches


class Connection:
    """The connection of one attempt. Another thread may close it at any time, even before it is connected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False
        self.connected = False

    def attach(self, connection: socket.socket) -> socket.socket:
        """Remember the connected socket and return it. After `close` it closes the socket and raises OSError."""
        with self._lock:
            if self._closed:
                connection.close()
                raise ConnectionAbortedError("nobody waits for this answer any more")
            # A duplicate: the reading thread may close its socket, or pass it to TLS, at any time, and `close` must
            # not shut down a descriptor that belongs to another connection by then.
            self._socket = connection.dup()
            self.connected = True
        return connection

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the server has closed it already
                    self._socket.shutdown(socket.SHUT_RDWR)
                self._socket.close()
                self._socket = None


def post(
    session: requests.Session,
    connection: Connection,
    api: ChatApi,
    request: Mapping[str, Any],
    connect_timeout_s: float,
) -> requests.Response:
    """Send `request` to `api` through `connection`, and return the response with its body unread.

    Raises the errors of requests.
    """
    adapter = _Adapter(connection)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    if _is_loopback(api.endpoint):  # a proxy cannot reach a server on this computer
        session.trust_env = False
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    return session.post(
        api.endpoint,
        json=_payload(api, request),
        headers=_headers(api),
        auth=_authorization(api),
        timeout=(connect_timeout_s, api.total_timeout_s + _MARGIN_S),
        stream=True,
        allow_redirects=False,  # no other host may get the key
    )


class _Adapter(HTTPAdapter):
    """Connects through `connection`. It hides path and query from urllib3, which logs URLs: they can hold a key."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.target = "/"
        super().__init__(max_retries=0)

    def request_url(self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        self.target = super().request_url(request, cast(Any, proxies))
        parts = urlsplit(self.target)
        return f"{parts.scheme}://{parts.netloc}/" if parts.netloc else "/"

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if pool.ConnectionCls not in (HTTPConnection, HTTPSConnection):  # with PySocks; a proxy is never bypassed
            raise AnswerFailed("a SOCKS proxy cannot be used", ChatFault.PROXY)
        pool.ConnectionCls = functools.partial(_TlsConnection if pool.scheme == "https" else _HttpConnection, self)
        return pool


class _HttpConnection(HTTPConnection):
    def __init__(self, adapter: _Adapter, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._adapter = adapter

    def _new_conn(self) -> socket.socket:
        return self._adapter.connection.attach(super()._new_conn())

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        super().putrequest(method, self._adapter.target, skip_host, skip_accept_encoding)


class _TlsConnection(_HttpConnection, HTTPSConnection):
    """The same over TLS; another thread can shut the connection down during the handshake, too."""


def _payload(api: ChatApi, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's body: the fields of `request` override those of the settings, except the model."""
    own = {"temperature": api.temperature, "max_tokens": api.max_tokens}
    settings = {**{name: value for name, value in own.items() if value is not None}, **api.extra_body}
    if "max_completion_tokens" in {**api.extra_body, **request}:
        settings.pop("max_tokens", None)  # an older name of the same field
    return {**settings, **request, "model": api.model, "stream": True}


def _headers(api: ChatApi) -> CaseInsensitiveDict[str]:
    """Return the request's headers; those of the settings override ours, `Authorization` included."""
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    headers["Accept"] = "text/event-stream, application/json"
    headers["Accept-Encoding"] = "identity"  # a compressor delays pieces
    headers["User-Agent"] = f"mirrorchat/{__version__}"
    if api.key:
        headers["Authorization"] = f"Bearer {api.key}"
    headers.update(api.headers)
    return headers


def _authorization(api: ChatApi) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return requests' `auth`, never None: without one requests overrides our header with ~/.netrc."""
    user, password = get_auth_from_url(api.endpoint)
    if user and not api.key:
        return HTTPBasicAuth(user, password)
    return lambda request: request


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
