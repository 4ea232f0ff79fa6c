"""Private servers of other kinds: MariaDB, RabbitMQ, Valkey behind Sentinel.

The environment chooses them, for one run of pytest: SIGNALBUS_TEST_DATABASE and SIGNALBUS_TEST_BROKER. Each server runs
in a temporary folder of its own, listens on loopback or on a socket, and ends with the process that started it.
"""

import os

# What the tests run on instead; None: on SQLite and PostgreSQL, and on Valkey.
DATABASE = os.environ.get("SIGNALBUS_TEST_DATABASE")
BROKER = os.environ.get("SIGNALBUS_TEST_BROKER")
DATABASES = ("mariadb",)
BROKERS = ("rabbitmq", "sentinel")
