# The image of this checkout's own project: the web process, its migrations and the worker are three commands of it.
# The base is an argument, so that another one can stand in under its own name: Debian with Python 3.11+ and venv will do.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY signalbus ./signalbus
# config/settings.py reads DATABASE_URL with dj-database-url; the library itself does not need it.
RUN /opt/venv/bin/pip install ".[postgres]" "dj-database-url>=3"

FROM ${BASE_IMAGE}
# An interpreter's path is written into a venv: both stages have the same base, so it may be copied.
COPY --from=build /opt/venv /opt/venv
RUN useradd --system --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin app
WORKDIR /app
# Not signalbus/: what runs here is the installed wheel, as at every customer's.
COPY manage.py ./
COPY config ./config
COPY tasks ./tasks
# PYTHONPATH: `celery` is a script in /opt/venv/bin, which alone would not find config and tasks.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=config.settings
USER app
CMD ["celery", "-A", "signalbus", "worker", "--loglevel", "INFO"]
