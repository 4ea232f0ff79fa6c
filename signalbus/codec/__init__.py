"""Register types of your own, so that their values travel in payloads: ``signalbus.codec.register``."""

from signalbus.codec.registering import register

__all__ = ["register"]
