"""Text normalization in English and Chinese: numbers, dates, units and signs become words."""
