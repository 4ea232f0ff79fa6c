"""The app's place among the others."""

from django.apps import AppConfig


class PayloadShapesConfig(AppConfig):
    """A signal that is sent in each shape."""

    name = "tests.payload_shapes"
    label = "payload_shapes"
