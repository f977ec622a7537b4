"""Questions asked and speech heard on this machine, of its own engines or of a server."""
