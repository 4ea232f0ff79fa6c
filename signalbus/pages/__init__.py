"""Code that the pages of the admin and of the web app share: bounded searches and counts, figures over time, and texts.

They read the ledger and change nothing. Called by `admin` and `web`.
"""
