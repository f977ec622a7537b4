"""OpenAI's HTTP API, for programs that were written for it."""
