"""A stream of text cut into what can be spoken: the first clause, then sentences."""
