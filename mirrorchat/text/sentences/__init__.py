"""Sentence boundaries, the first clause, markup and code blocks in streamed text."""
