"""The signals of the benchmark."""

from django.dispatch import Signal as DjangoSignal

from signalbus import Signal

plain = Signal(durable=False)  # its receiver asks for no transaction
atomic = Signal(durable=False)  # its receiver has the default policy
fetched = Signal(durable=False)  # its message refers to a row
bulky = Signal(durable=False)  # its payload grows
piled = Signal(durable=False)  # through a queue that no worker looks at

kept = Signal()  # durable, to one receiver
kept_by_three = Signal()
stored = Signal()  # durable, and its receiver does nothing, through a queue that no worker looks at
durable = Signal()  # its receiver writes a row
fleeting = Signal(durable=False)  # as well

quick = Signal(durable=False)  # what waits for nothing
slow = Signal(durable=False)
burst = Signal(durable=False)  # a few of them are slow
turning = Signal(durable=False)  # slow from some moment on

unheard = Signal()
inline = Signal()
django_unheard = DjangoSignal()
django_inline = DjangoSignal()

succeeding = Signal()  # durable; its receiver does what the next ones do, and succeeds
failing = Signal()  # its receiver fails three times
retried = Signal()  # its receiver fails again and again

announced = Signal()  # durable; no worker runs while it is sent, nor these
unique = Signal(unique="slug")
debounced = Signal(unique="slug", debounce=3600)
