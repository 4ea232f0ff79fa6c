"""Draw the graph of signals: apps that send, signals, receivers and queues, with rates and dead ends.

Called by the web app's page and by ``manage.py signalbus graph``.
"""
