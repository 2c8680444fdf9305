"""Process plumbing: settings, logging, metrics, tracing, health, lifecycle, retry policies, HTTP client of the API."""
