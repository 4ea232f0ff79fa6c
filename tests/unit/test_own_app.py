"""The settings of our own Celery app, which a host's CELERY_* override unless two apps would harm each other."""

from __future__ import annotations

import pytest
from celery.contrib.django.task import DjangoTask

from signalbus import celery
from signalbus.exceptions import ConfigurationError


@pytest.fixture
def made(settings):
    """Make our own app as a project with these settings gets it."""

    def make(**given):
        for name, value in given.items():
            setattr(settings, name, value)
        return celery._own_app()

    return make


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker_channel_error_retry", False),
        ("broker_connection_max_retries", 7),
        ("broker_connection_retry_on_startup", False),
        ("result_backend", "redis://localhost/7"),
        ("task_ignore_result", False),
        ("task_soft_time_limit", 11),
        ("task_time_limit", 12),
        ("worker_cancel_long_running_tasks_on_connection_loss", True),
        ("worker_enable_remote_control", True),
        ("worker_prefetch_multiplier", 5),
        ("worker_soft_shutdown_timeout", 1.0),
    ],
)
def test_a_host_s_settings_override_our_defaults(made, name, value):
    """docs/settings.md lists them."""
    assert made().conf[name] != value
    assert made(**{f"CELERY_{name.upper()}": value}).conf[name] == value


def test_our_defaults_differ_from_celerys(made):
    """Without a host's setting our default applies."""
    conf = made(CELERY_TASK_TIME_LIMIT=12).conf
    assert (conf.task_soft_time_limit, conf.worker_prefetch_multiplier) == (12 * 0.9, 2)


def test_without_a_hard_limit_there_is_no_soft_one(made):
    """A project that removes the limit means both."""
    conf = made(CELERY_TASK_TIME_LIMIT=None).conf
    assert (conf.task_time_limit, conf.task_soft_time_limit) == (None, None)


def test_limit_that_is_no_number_is_refused_by_name(made):
    """It may be a text from the environment; the system check reports it, instead of a traceback."""
    with pytest.raises(ConfigurationError, match="CELERY_TASK_TIME_LIMIT is '300'; it must be a number of seconds"):
        made(CELERY_TASK_TIME_LIMIT="300")


def test_the_broker_waits_longer_than_a_host_s_own_limit(made):
    """A message that still runs must not be redelivered."""
    conf = made(CELERY_BROKER_URL="redis://localhost/7", CELERY_TASK_TIME_LIMIT=1000).conf
    assert conf.broker_transport_options["visibility_timeout"] == 3000


def test_a_host_s_transport_options_are_merged(made):
    """A host's option takes precedence; the others stay ours."""
    options = made(
        CELERY_BROKER_URL="redis://localhost/7", CELERY_BROKER_TRANSPORT_OPTIONS={"socket_timeout": 1, "mine": 2}
    ).conf.broker_transport_options
    assert (options["socket_timeout"], options["mine"], options["unacked_restore_interval"]) == (1, 2, 15)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_default_queue", "celery"),
        ("task_default_exchange", "celery"),
        ("task_default_routing_key", "celery"),
        ("task_routes", {"*": "elsewhere"}),
        ("accept_content", ["pickle", "yaml"]),
        ("task_serializer", "pickle"),
        ("task_protocol", 1),
        ("worker_consumer", "shop.worker:Consumer"),
    ],
)
def test_harmful_settings_cannot_be_overridden(made, name, value):
    """Two apps on one queue discard each other's tasks, and our worker must be able to read its queue."""
    assert made(**{f"CELERY_{name.upper()}": value}).conf[name] == made().conf[name] != value


def test_annotations_of_all_tasks_do_not_make_ours_unsafe(made):
    """An annotation of ``"*"`` must not acknowledge a message early, nor pickle it; others apply."""
    careless = {"acks_late": False, "reject_on_worker_lost": False, "serializer": "pickle", "rate_limit": "9/s"}
    task = made(CELERY_TASK_ANNOTATIONS={"*": careless}).tasks[celery.TASK_NAME]
    assert (task.acks_late, task.reject_on_worker_lost, task.serializer) == (True, True, "json")
    assert task.rate_limit == "9/s"


def test_a_shared_task_waits_for_the_commit(made, monkeypatch):
    """`delay_on_commit` comes with Celery's Django task class."""
    app = made()

    @app.task(name="tests.shared")
    def shared():
        pass

    assert isinstance(app.tasks["tests.shared"], DjangoTask)


def test_sentinel_has_the_options_of_redis(made):
    """Visibility and timeouts are set beside the host's master_name, in worker and publisher."""
    app = made(CELERY_BROKER_URL="sentinel://127.0.0.1:1", CELERY_BROKER_TRANSPORT_OPTIONS={"master_name": "m"})
    ours = {"master_name": "m", "visibility_timeout": 900.0, "socket_timeout": 5.0, "socket_connect_timeout": 2.0}

    with app.connection_for_write() as connection:
        taken = connection.transport.Channel.from_transport_options
        assert ours.items() <= connection.transport_options.items()
    assert ours.keys() <= set(taken)
    assert ours.items() <= celery.transport_options(app).items()
