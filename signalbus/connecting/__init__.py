"""Connecting a receiver: its id, its options, the senders it is for, and the list of each signal's receivers."""
