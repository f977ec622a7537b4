"""Sound: samples that carry their rate, uploads decoded, encoders, voice activity, time stretching."""
