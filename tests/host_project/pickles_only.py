"""The settings of a host whose workers accept only pickles."""

from tests.host_project.pickling import *  # noqa: F403 - settings built on settings

CELERY_ACCEPT_CONTENT = ["pickle"]
