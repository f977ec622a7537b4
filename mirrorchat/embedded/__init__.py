"""The engines that need no installation: pocketsphinx recognizes, eSpeak NG speaks, WORLD tints the voice."""
