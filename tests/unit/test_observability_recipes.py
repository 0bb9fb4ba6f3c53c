"""The recipes of docs/observability.md are run as they stand, and give the figures they promise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from recovery import Command, Observer, Runtime
from tests.engines import Till
from tests.unit.test_outbox import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"


def recipe(name: str) -> Any:
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if f"class {name}" in block
    ]
    assert len([line for line in code.splitlines() if line.strip() and "import" not in line]) <= 13, (
        "12 lines, and the class"
    )
    names: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    return names[name]()


def work(observer: Any) -> None:
    seen: list[object] = []
    with Runtime.open(Till, journal="memory:", snapshots="memory:", observer=observer) as till:
        for cents in (5, 6, -100):
            till.execute(Command("deposit", {"number": "ada", "cents": cents}))
        till.outbox("mail", deliver=seen.append)
        wait_for(lambda: till.status()["outboxes"] != [] and till.status()["outboxes"][0]["messages"] == 2)


def test_prometheus() -> None:
    work(recipe("Prometheus"))
    value = REGISTRY.get_sample_value
    assert value("recovery_commands_total", {"type": "deposit", "rejected": "False"}) == 2
    assert value("recovery_commands_total", {"type": "deposit", "rejected": "True"}) == 1
    assert value("recovery_append_seconds_count") == 3
    assert value("recovery_outbox_behind", {"outbox": "mail"}) == 0


def test_opentelemetry() -> None:
    reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
    metrics.set_meter_provider(MeterProvider([reader]))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    work(recipe("OpenTelemetry"))
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert sum(point.value for point in found["recovery.commands"]) == 3  # type: ignore[union-attr]
    assert sum(point.count for point in found["recovery.append"]) == 3  # type: ignore[union-attr]
    appends = [span for span in spans.get_finished_spans() if span.name == "append"]
    assert len(appends) == 3
    assert all(span.end_time > span.start_time for span in appends if span.end_time and span.start_time)


def test_every_hook_and_field_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [hook for hook in vars(Observer) if not hook.startswith("_") and f"`{hook}`" not in text] == []
    with Runtime.open(Till, journal="memory:", snapshots="memory:") as till:
        status = till.status()
    inside = {"waiting", "batches", "outcomes", "outboxes", "image_in_progress", "cold_start", "uptime_seconds"}
    assert inside <= status.keys()
    assert [field for field in inside if f"`{field}`" not in text] == []
