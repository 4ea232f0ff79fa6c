"""What the benchmark sends."""

from django.dispatch import Signal as DjangoSignal

from signalbus import Signal

plain = Signal()  # its receiver asks for no transaction
atomic = Signal()  # its receiver has the default policy
fetched = Signal()  # its message refers to a row
durable = Signal()  # its receiver writes a row
fleeting = Signal(durable=False)  # as well
unheard = Signal()
inline = Signal()
both = Signal()

django_unheard = DjangoSignal()
django_inline = DjangoSignal()
