"""The subcommands about declared payloads: list the signals, compare them with a lock file and with what waits."""
