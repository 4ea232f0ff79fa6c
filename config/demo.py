"""The checkout's settings, with the receivers that misbehave in ``make demo``, and with the web app."""

from config.settings import *  # noqa: F403 - settings built on settings
from config.settings import INSTALLED_APPS, MIDDLEWARE

ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.staticfiles", "signalbus.web", "tasks.demo"]
MIDDLEWARE = [*MIDDLEWARE, "tasks.demo.web_server.visitor_middleware"]
ROOT_URLCONF = "config.demo_urls"
STATIC_URL = "static/"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

# The failures of the demo become dead within seconds; RELEASE is drawn as a mark in the charts.
SIGNALBUS = {"RELEASE": "demo"}
