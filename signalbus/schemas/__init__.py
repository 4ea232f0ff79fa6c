"""What the code of a project promises to carry: a catalogue of its signals, their schemas, and comparisons with them.

The commands ``signals``, ``schema``, ``in-flight`` and ``check`` show and compare it.
"""
