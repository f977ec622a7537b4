"""Measurements; each script runs by itself (see README.md). A package, so that they find one another by this name."""
