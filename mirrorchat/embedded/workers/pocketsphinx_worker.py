"""The pocketsphinx worker process (`python -m mirrorchat.embedded.workers.pocketsphinx_worker`) turns speech into text.

It is a process of its own because pocketsphinx holds the GIL while it decodes: in the server's process, every other
caller would wait for a fifth of each question's length. Request body: 16-bit little-endian mono samples at 16 kHz.
Answer body: the best hypothesis, UTF-8, empty when there is none.
"""

from collections.abc import Callable

from mirrorchat.embedded.workers.serve import serve

SAMPLE_RATE_HZ = 16_000


def load() -> Callable[[bytes], bytes]:
    """Load the English model inside the package; return the function that answers a request."""
    from pocketsphinx import Decoder

    # "batch" takes the cepstral mean of the whole utterance; the default mode keeps that of the last utterance.
    decoder = Decoder(samprate=SAMPLE_RATE_HZ, cmn="batch", loglevel="FATAL")

    def recognize(samples: bytes) -> bytes:
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        return best.hypstr.encode() if best else b""

    return recognize


if __name__ == "__main__":
    serve(load)
