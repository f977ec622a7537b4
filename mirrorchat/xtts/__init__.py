"""XTTS v2: the files, the network, the batched decode engine, the vocoder."""
