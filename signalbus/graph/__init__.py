"""Draw who sends to whom: senders, signals, receivers and queues, with what happens in a minute and with dead ends.

Called by the web app's page and by ``manage.py signalbus graph``.
"""
