"""The client side of `ask`, `say` and `hear`: sound devices, turns in this process, and requests to a server."""
