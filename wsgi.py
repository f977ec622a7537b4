"""What a WSGI server imports: `gunicorn -c deploy/gunicorn.conf.py wsgi:app`."""

from mirrorchat.app import create_app

app = create_app()
