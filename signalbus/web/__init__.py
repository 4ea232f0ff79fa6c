"""The web app of the bus: what happened, why, and for whom; and the way to change it, for a team that may.

A Django app of its own: a project that does not install `signalbus.web` pays nothing for it. Its views ask
`signalbus.services`, and change nothing but through them.
"""
