"""Which engines a process loads, whether they fit into the memory, and the loading."""
