"""gunicorn -c deploy/gunicorn.conf.py: the settings are in the package, where `mirrorchat serve` finds them, too."""

from mirrorchat.server.gunicorn_conf import *  # noqa: F403
