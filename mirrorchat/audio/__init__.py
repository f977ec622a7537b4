"""Audio: samples with their rate, decoding of uploads, encoders, voice activity, time stretching, segmentation."""
