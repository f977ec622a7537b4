"""`python -m mirrorchat` is the command line."""

from mirrorchat.cli import main

main()
