"""One request to a chat API, and what it answers."""
