"""The server's parts: formats of answers, streams, the watch on sockets, sessions, metrics, the page."""
