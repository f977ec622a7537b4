"""The commands of `mirrorchat`, a module each."""
