"""An option that does not exist is refused with the likely one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from celery import Celery, shared_task
from django.db.models.signals import post_save

from signalbus import Retry, Signal, conf, receiver
from signalbus.exceptions import ConfigurationError


def on_event(sender, **kwargs):
    """Receive."""


def on_event_without_more(sender, instance):
    """Receive, and take no other keywords."""


RECEIVER_MISSES = [
    ({"retries": 3}, "did you mean retry=Retry(max_attempts=3)?"),
    ({"max_retries": 3}, "did you mean retry=Retry(max_attempts=3)?"),
    ({"countdown": 5}, "did you mean retry=Retry(base_delay=5)?"),
    ({"time_limit": 9}, "did you mean timeout=9?"),
    ({"time_out": 9}, "did you mean timeout=9?"),
    ({"que": "mails"}, "did you mean queue='mails'?"),
    ({"on_mising": "fail"}, "did you mean on_missing='fail'?"),
    ({"ordered_by": "id"}, "did you mean Signal(ordered_by='id'), where the signal is declared?"),
    ({"flavour": "sweet"}, "it takes "),
]


@pytest.mark.parametrize(("options", "hint"), RECEIVER_MISSES)
@pytest.mark.parametrize("inline", [False, True])
def test_misspelt_receiver_options(options, hint, inline):
    """``connect`` and ``@receiver`` of both kinds of signals give the same hint."""
    signal = Signal("tests.options")
    with pytest.raises(TypeError, match=re.escape(hint)):
        signal.connect(on_event, inline=inline, **options)
    for each in (signal, post_save):
        with pytest.raises(TypeError, match=re.escape(hint)):
            receiver(each, sender="auth.User", inline=inline, **options)(on_event)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"providing_args": ["instance"]}, "Django has dropped it"),
        ({"durabel": False}, "did you mean durable=False?"),
        ({"order_by": "id"}, "did you mean ordered_by='id'?"),
        ({"queue": "mails"}, "did you mean @receiver(…, queue='mails'), where a receiver is connected?"),
        ({"retries": 3}, "did you mean @receiver(…, retry=Retry(max_attempts=3))?"),
    ],
)
def test_misspelt_signal_options(options, hint):
    """``Signal(…)`` refuses it; so does a subclass that passes its options on."""

    class Louder(Signal):
        def __init__(self, volume, **more):
            super().__init__("tests.louder", **more)
            self.volume = volume

    with pytest.raises(TypeError, match=re.escape(hint)):
        Signal("tests.options", **options)
    with pytest.raises(TypeError, match=re.escape(hint)):
        Louder(3, **options)
    assert Louder(3).volume == 3


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"retries": 3}, "did you mean max_attempts=3?"),
        ({"max_atempts": 3}, "did you mean max_attempts=3?"),
        ({"delay": 5}, "did you mean base_delay=5?"),
        ({"retry_backoff_max": 60}, "did you mean max_delay=60?"),
        ({"flavour": "sweet"}, "it takes base_delay, jitter, max_attempts, max_delay"),
    ],
)
def test_misspelt_retry_options(settings, options, hint):
    """``Retry(…)`` refuses it; so does the setting RETRY as a dict."""
    with pytest.raises(TypeError, match=re.escape(hint)):
        Retry(**options)
    settings.SIGNALBUS = {"RETRY": options}
    with pytest.raises(ConfigurationError, match=re.escape(hint)):
        conf.get()


def test_retry_takes_positions_and_replace():
    """Positions, keywords and ``replace()`` make a policy."""
    assert Retry(3, 1.0) == replace(Retry(max_attempts=5, base_delay=1.0), max_attempts=3)


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("RETRIES", 3, 'did you mean "RETRY": Retry(max_attempts=3)?'),
        ("MAX_ATTEMPTS", 3, 'did you mean "RETRY": Retry(max_attempts=3)?'),
        ("QUEUES", "mails", 'did you mean "QUEUE"?'),
        ("CELERY_BROKER_URL", "redis://", "beside SIGNALBUS in the settings, as CELERY_BROKER_URL = 'redis://'"),
        ("TIME_ZONE", "UTC", "beside SIGNALBUS in the settings"),
        (7, 7, "the keys are CELERY_APP"),
    ],
)
def test_misspelt_settings_keys(settings, key, value, hint):
    """An unknown key of SIGNALBUS is refused with the likely one."""
    settings.SIGNALBUS = {key: value}
    with pytest.raises(ConfigurationError, match=re.escape(hint)):
        conf.get()


def test_number_instead_of_a_retry():
    """``retry=3`` is refused with the policy that means it."""
    with pytest.raises(ConfigurationError, match=re.escape("retry=Retry(max_attempts=3)")):
        Signal("tests.options").connect(on_event, retry=3)  # type: ignore[arg-type]  # that is the mistake


def test_receiver_without_kwargs_is_named_with_its_line(settings):
    """This holds under DEBUG, as in Django; the error says what to write."""
    settings.DEBUG = True
    line = on_event_without_more.__code__.co_firstlineno
    with pytest.raises(ValueError, match=r"must accept keyword arguments \(\*\*kwargs\)") as caught:
        Signal("tests.options").connect(on_event_without_more)
    assert f"on_event_without_more ({__file__}:{line})" in str(caught.value)
    assert "write def on_event_without_more(sender, instance, **kwargs)" in str(caught.value)


def lazy_task(sender, **kwargs):
    """Be a task that is made lazily."""


lazy_task_object = shared_task(lazy_task)
theirs = Celery("theirs", set_as_current=False)


@theirs.task
def eager_task(sender, **kwargs):
    """Be a task of an app."""


@pytest.mark.parametrize(
    "task",
    [lazy_task_object, eager_task, eager_task.delay, eager_task.s()],
    ids=["shared", "own", "delay", "signature"],
)
def test_celery_task_is_no_receiver(task):
    """The error says what to connect instead."""
    with pytest.raises(ConfigurationError, match=r"is a Celery task.*without @shared_task.*my_task\.delay"):
        Signal("tests.options").connect(task)


def test_receiver_without_weak_references_is_refused():
    """A lazy task with a uid is accepted with ``weak=False``."""
    signal = Signal("tests.options")
    with pytest.raises(ConfigurationError, match="weak=False"):
        signal.connect(lazy_task_object, dispatch_uid="task")
    signal.connect(lazy_task_object, dispatch_uid="task", weak=False)
