"""Who may ask: API keys, rate limits, origins of web pages, proxies."""
