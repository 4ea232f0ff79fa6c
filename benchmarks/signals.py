"""What the benchmark sends."""

from django.dispatch import Signal as DjangoSignal

from signalbus import Signal

plain = Signal(durable=False)  # its receiver asks for no transaction
atomic = Signal(durable=False)  # its receiver has the default policy
fetched = Signal(durable=False)  # its message refers to a row
kept = Signal()  # durable, to one receiver
kept_by_three = Signal()
durable = Signal()  # its receiver writes a row
fleeting = Signal(durable=False)  # as well
unheard = Signal()
inline = Signal()
both = Signal()

django_unheard = DjangoSignal()
django_inline = DjangoSignal()
