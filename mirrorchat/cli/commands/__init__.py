"""The commands of `mirrorchat`. Each command has a module."""
