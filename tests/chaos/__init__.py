"""The chaos suite injects faults into real processes, and counts lost and duplicate deliveries: ``make chaos``.

The modules that inject faults (``faults``, ``scenarios``) do not know what must hold (``expectations``). The one that
judges (``checker``) knows neither processes nor databases: it reads what senders and receivers left behind.
"""
