"""The wire format of messages: the codec for payloads, the message, and its signature.

It knows no database and no Celery.
"""
