"""Pages of the Django admin: deliveries, messages, operations. Its autodiscover imports them, if it is installed.

Each page shows what the functions of `signalbus.services` find, and changes nothing but through them. A project with an
`AdminSite` of its own registers the classes there. `SignalsHistoryMixin` is for the pages of the project's own models.
"""

from django.contrib import admin

from signalbus.admin.delivery_pages import DeliveryAdmin
from signalbus.admin.history_link import SignalsHistoryMixin
from signalbus.admin.message_pages import MessageAdmin
from signalbus.admin.operation_pages import OperationAdmin
from signalbus.models import Delivery, Operation, StoredMessage

__all__ = ["DeliveryAdmin", "MessageAdmin", "OperationAdmin", "SignalsHistoryMixin"]

admin.site.register(Delivery, DeliveryAdmin)
admin.site.register(StoredMessage, MessageAdmin)
admin.site.register(Operation, OperationAdmin)
