"""Payloads in the shapes that projects send travel through a real worker, with the real libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import modify_settings

from signalbus.models import Delivery
from signalbus.wire.values import registered_types
from tasks.admissions.models import Academy
from tasks.marketing.models import FormEntry
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Worker

LIBRARIES = ("pydantic", "attrs", "msgspec", "numpy", "djmoney", "phonenumber_field")


@pytest.fixture
def shapes_app(database_url: str) -> Iterator[None]:
    """Install the app of shapes, with its table and the rows that the shapes refer to."""
    for name in LIBRARIES:
        pytest.importorskip(name)
    with modify_settings(INSTALLED_APPS={"append": "tests.payload_shapes"}):
        from tests.payload_shapes.models import Upload

        with connection.schema_editor() as editor:
            editor.create_model(Upload)
        for slug in ("one", "two"):
            Academy.objects.create(name=slug.title(), slug=slug)
        User.objects.create(username="ann")
        Upload.objects.create(document="reports/é.pdf")
        yield
    registered_types.by_type.clear()
    registered_types.by_name.clear()


def test_each_shape_arrives_as_it_was_sent(shapes_app: None, start_worker: Callable[..., Worker]):
    """A receiver in a worker compares each shape with one that it makes itself."""
    start_worker(environment={"DJANGO_SETTINGS_MODULE": "tests.payload_shapes.settings"})
    from tests.payload_shapes import receivers  # noqa: F401 - connects the receiver
    from tests.payload_shapes.shapes import SHAPES
    from tests.payload_shapes.signals import shaped

    for name, shape in SHAPES.items():
        sender, payload = shape()
        shaped.send(sender, shape=name, **payload)

    assert len(SHAPES) >= 30
    open_ones = Delivery.objects.filter(ended_at=None, attempts=0).exclude(state="parked")
    wait_until(lambda: not open_ones.exists(), 60, "the receivers")
    assert dict(FormEntry.objects.values_list("subject", "kind")) == dict.fromkeys(SHAPES, "equal")
