"""`python -m mirrorchat` is the command line."""

from mirrorchat.cli.main import main

main()
