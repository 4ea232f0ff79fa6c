"""Find and explain deliveries for people: what the command line, the admin and code of a host call.

Each function reads the ledger in bounded queries and returns plain values; how they are shown is the caller's.
"""
