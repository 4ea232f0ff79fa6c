"""Describe what the code of a project promises to carry: its signals, their schemas, and comparisons with these.

The commands ``signals``, ``schema``, ``in-flight`` and ``check`` show and compare it.
"""
