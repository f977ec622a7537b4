"""The command line: `mirrorchat serve`, `ask`, `say`, `hear`, `models`, `doctor`, `evaluate`, ..."""
