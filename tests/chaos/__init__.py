"""The chaos suite injects faults into real processes, and counts lost and duplicate deliveries: ``make chaos``.

What happens (``faults``, ``cells``) knows nothing of what must hold (``expectations``), and who judges (``checker``)
knows neither processes nor databases: it reads what senders and receivers left behind.
"""
