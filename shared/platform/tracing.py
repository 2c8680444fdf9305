"""Spans at every boundary and their way across it as W3C `traceparent`.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` no provider is installed and `span` costs one comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.context import Context

_propagator = TraceContextTextMapPropagator()
_enabled = False


def configure_tracing(service: str, endpoint: str) -> None:
    """Export spans of `service` to the OTLP/HTTP `endpoint`; an empty one switches tracing off.

    Raises:
        ImportError: the exporter is not installed (`pip install 'playhead[otlp]'`).
    """
    global _enabled
    if not endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"playhead-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)
    _enabled = True


@contextmanager
def _recorded(name: str, parent: Context | None, attributes: Mapping[str, str | int | float | bool]) -> Iterator[None]:
    """Record a span; of an exception only its type, because messages and tracebacks repeat what was sent to us."""
    tracer = trace.get_tracer("playhead")
    with tracer.start_as_current_span(
        name, context=parent, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


_NOTHING = nullcontext()


def span(
    name: str, *, parent: Context | None = None, **attributes: str | int | float | bool
) -> AbstractContextManager[None]:
    """Return a context manager that records a span under `parent` (default: the current one)."""
    return _recorded(name, parent, attributes) if _enabled else _NOTHING


def extract(headers: Mapping[str, str] | None) -> Context | None:
    """Return the caller's trace context out of HTTP or NATS headers; None when there is none."""
    if not _enabled or not headers or "traceparent" not in headers:
        return None
    return _propagator.extract({"traceparent": headers["traceparent"]})


def inject(headers: MutableMapping[str, str]) -> None:
    """Add the current trace context to `headers`."""
    if _enabled:
        _propagator.inject(headers)
