"""The signals and receivers of this process, by name and id, and the policy of each receiver."""
