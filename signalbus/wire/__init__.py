"""The wire format of messages: the codec for payloads, the message, and its signature.

Senders write it and workers read it; older and newer versions must understand each other. It knows no database and no
Celery.
"""
