"""The models that can be installed: where they come from, and what is on the disk."""
