"""Breaks the bus on purpose, with real processes, and counts what was lost: ``make chaos``.

What happens (``faults``, ``cells``) knows nothing of what must hold (``expectations``), and who judges (``checker``)
knows neither processes nor databases: it reads what senders and receivers left behind.
"""
