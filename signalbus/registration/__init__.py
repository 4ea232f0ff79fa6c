"""What this process knows: its signals and receivers by name, and the policy of each receiver."""
