"""WeNet's models: the released files, the network, batches and streams through it."""
