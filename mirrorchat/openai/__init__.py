"""OpenAI's HTTP API: what its routes read and answer."""
