"""Judge each precondition of a promise, with its remedy, for ``manage.py signalbus doctor``.

`examination` collects the facts; the modules of judgements decide about them, and ask neither database nor broker.
"""
