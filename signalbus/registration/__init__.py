"""The registry of this process: its signals and receivers by name, and the policy of each receiver."""
