"""The pages of the tests' project: the checkout's, and Django's admin with a page of the project's own rows."""

from django.contrib import admin
from django.urls import include, path

from config.urls import urlpatterns as pages_of_the_checkout
from signalbus.admin import SignalsHistoryMixin
from signalbus.telemetry.views import metrics
from tasks.admissions.models import Academy


class AcademyAdmin(SignalsHistoryMixin, admin.ModelAdmin):  # type: ignore[type-arg]  # as a project writes it
    """Academies, with the signals that were sent about each."""


admin.site.register(Academy, AcademyAdmin)
urlpatterns = [
    *pages_of_the_checkout,
    path("admin/", admin.site.urls),
    path("metrics", metrics),
    path("signalbus/", include("signalbus.web.urls")),
]
