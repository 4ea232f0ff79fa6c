"""What the pages of the admin and of the web app share: bounded searches, and texts that are fit for a page.

They read the ledger and change nothing.
"""
