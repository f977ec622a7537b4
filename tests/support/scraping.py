"""A server's metrics, read as Prometheus reads them."""

import requests
from prometheus_client.parser import text_string_to_metric_families


def samples(text: str) -> dict[str, float]:
    """Return every sample as `name{label=value,...}`, labels in alphabetical order, without the buckets."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return {name: value for name, value in found.items() if "_bucket{" not in name}


def scrape(url: str, **headers: str) -> dict[str, float]:
    response = requests.get(f"{url}/metrics", headers=headers, timeout=5)
    assert response.status_code == 200, response.text
    return samples(response.text)
