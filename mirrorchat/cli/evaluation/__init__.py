"""The measurement of recognition and speech with recordings."""
