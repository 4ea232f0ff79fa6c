"""Find and explain deliveries for people: what the command line, the admin and code of a host call.

Each function reads the ledger in bounded queries and returns plain values; how they are shown is the caller's. What
changes something takes an actor, checks its permission, and writes the audit log (`actors`, `audit_log`).
"""
