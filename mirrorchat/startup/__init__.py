"""Startup: the choice of the engines, the plan of their memory, and loading."""
