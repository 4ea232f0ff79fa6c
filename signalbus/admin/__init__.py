"""Pages of the Django admin: deliveries, messages, receivers; imported by the admin's autodiscover, if it is installed.

Each page shows what the functions of `signalbus.services` find, and changes nothing but through them. A project with an
`AdminSite` of its own registers the classes there.
"""

from django.contrib import admin

from signalbus.admin.delivery_pages import DeliveryAdmin
from signalbus.admin.message_pages import MessageAdmin
from signalbus.models import Delivery, StoredMessage

__all__ = ["DeliveryAdmin", "MessageAdmin"]

admin.site.register(Delivery, DeliveryAdmin)
admin.site.register(StoredMessage, MessageAdmin)
