"""Access control: API keys, rate limits, origins of web pages, proxies."""
