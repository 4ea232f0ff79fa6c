"""The subcommands that list, show, follow and change deliveries: failed, show, retry, rehearse, tail and others."""
