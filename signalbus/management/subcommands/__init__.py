"""The subcommands of ``manage.py signalbus``: each module declares some of them with their arguments, and runs them.

A module has a function ``add``, which takes argparse's subparsers; each parser's default ``run`` is a function of the
command and its options.
"""
