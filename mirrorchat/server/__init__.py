"""The server's parts: who asks, what is answered in which form, what is counted, the page."""
