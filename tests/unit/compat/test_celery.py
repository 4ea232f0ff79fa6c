"""What is private to Django, Celery and kombu still is as we use it."""

from __future__ import annotations

from celery.utils.dispatch import Signal

from signalbus.compat.celery import listeners


class TestListeners:
    def test_who_listens_to_everything_and_who_asked_for_a_sender(self):
        """Both hear of the sender; who asked for another does not."""
        signal = Signal(name="tests")

        def of_all(**kwargs):
            pass

        def of_mine(**kwargs):
            pass

        def of_another(**kwargs):
            pass

        signal.connect(of_all)
        signal.connect(of_mine, sender="mine")
        signal.connect(of_another, sender="another")
        assert listeners(signal, "mine") == [(of_all, False), (of_mine, True)]

    def test_nobody(self):
        """As it is nearly always."""
        assert listeners(Signal(name="tests"), "mine") == []
