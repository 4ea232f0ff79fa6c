"""One signal for each kind of misbehaviour."""

from signalbus import Signal

failing = Signal()  # to all that fail without ending their process, and to a healthy one
killing = Signal()  # to one that kills its process, and to a healthy one
endless = Signal()  # to one that never returns
mailed = Signal()  # through a queue of its own
awaited = Signal()  # to an async one
cascading = Signal()  # to one that sends it again
announced = Signal(open=True)  # sent by a process that does not know who receives
fleeting = Signal(durable=False)
arriving = Signal()  # to one that a worker may lack (see receivers.py)
connected = Signal()  # to one that tells which connection it has
lingering = Signal()  # to one that takes 50 ms
long = Signal()  # to one whose first run lasts until it is cut off
handing_on = Signal()
stalling = Signal()  # to one that keeps its transaction open until its worker is gone
stepping = Signal(ordered_by="key")  # to one that fails now and then
together = Signal(durable=False)  # to one that is brief, but for what a message asks of it
bound = Signal()  # to the same, in a transaction
hung = Signal()  # to one that hangs until it is released, and to three that are quick
hung_unrecorded = Signal(durable=False)  # to the same
hung_open = Signal(durable=False, open=True)  # to the same, which the worker looks up
counted = Signal(durable=False)  # to one that leaves a line in a file for each run, and takes its time
poisoned = Signal()  # to one that ends its process at one number, in the way that it is told
buggy = Signal()  # to one that fails while a file exists
