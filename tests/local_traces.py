"""Write the spans and the envelopes of a real worker to files, as a project configures its tracing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from sentry_sdk.envelope import Envelope

SPANS, TRANSACTIONS = "spans.jsonl", "transactions.jsonl"


class FileExporter(SpanExporter):
    """Writes a line for each span; a line is written at once, by any process.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans."""
        with self._path.open("a") as file:
            file.writelines(f"{span.to_json(indent=None)}\n" for span in spans)
        return SpanExportResult.SUCCESS


class FileTransport(Transport):
    """Writes a line for each transaction.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def capture_envelope(self, envelope: Envelope) -> None:
        """Write the transactions of an envelope."""
        found = [json.loads(item.get_bytes()) for item in envelope.items if item.type == "transaction"]
        with self._path.open("a") as file:
            file.writelines(f"{json.dumps(each)}\n" for each in found)


def write_to(folder: str) -> None:
    """Configure both tracing systems, with all that Sentry switches on by itself.

    Args:
        folder: where the files go.
    """
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(Path(folder) / SPANS)))
    trace.set_tracer_provider(provider)
    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1",
        transport=FileTransport(Path(folder) / TRANSACTIONS),
        traces_sample_rate=1.0,
        auto_session_tracking=False,
    )


def read(folder: Path, name: str) -> list[dict[str, object]]:
    """Return what a worker has written.

    Args:
        folder: where the files are.
        name: the file.
    """
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
