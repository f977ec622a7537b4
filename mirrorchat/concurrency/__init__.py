"""Waiting: the context of a turn, and the order in which engines compute on one GPU."""
