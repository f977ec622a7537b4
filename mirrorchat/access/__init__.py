"""Access control: API keys, rate limits, names of the server, origins of web pages, proxies."""
