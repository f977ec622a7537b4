"""The engines that need no installation: pocketsphinx hears, eSpeak NG speaks, the asker's voice tints it."""
