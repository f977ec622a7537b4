"""WeNet's models: their files, the network, the CTC search, rescoring, the batched engine, streaming."""
