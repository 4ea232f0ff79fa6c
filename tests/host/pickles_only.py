"""The settings of a host whose workers would take nothing but pickles."""

from tests.host.pickling import *  # noqa: F403 - settings built on settings

CELERY_ACCEPT_CONTENT = ["pickle"]
