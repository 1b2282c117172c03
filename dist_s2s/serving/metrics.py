"""What a service counts, in Prometheus' text form."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics"]
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SENTENCES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "dist_s2s_requests", "Requests by path and HTTP status.", ("path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "dist_s2s_request_seconds",
            "Seconds from a request's first byte to its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_sentences = Histogram(
            "dist_s2s_batch_sentences", "Sentences translated together.", buckets=_SENTENCES, registry=registry
        )
        self.batch_seconds = Histogram(
            "dist_s2s_batch_seconds", "Seconds that a batch took.", buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("dist_s2s_waiting", "Sentences and words that wait for an answer.", registry=registry)

    def text(self) -> bytes:
        """Return all figures as they are now."""
        return generate_latest(self._registry)
