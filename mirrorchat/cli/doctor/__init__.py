"""The sections of `mirrorchat doctor`, which looks for problems of an installation."""
