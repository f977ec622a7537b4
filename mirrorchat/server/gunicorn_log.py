"""gunicorn's log without callers' data."""

import logging


class NothingOfCallers(logging.Filter):
    """Removes callers' data from gunicorn's messages: malformed heads hold keys, addresses hold names."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, some with another message."""
        if str(record.msg).startswith("Invalid request from"):
            record.msg, record.args = "a request could not be read", ()
        elif str(record.msg).startswith("Error handling request"):
            kind = record.exc_info[0] if record.exc_info else None
            record.msg, record.args = f"a request could not be handled: {kind.__name__ if kind else 'unknown'}", ()
            record.exc_info = record.exc_text = None
        return True
