"""Declared payloads: the fields of a payload class, checks of values against them, and upcasts of older versions.

`sending` checks with it what is sent, and `receiving/invoking` brings older payloads to the version of this code. It
knows neither signals nor receivers; pydantic, attrs and msgspec are used if a project declares payloads with them.
"""
