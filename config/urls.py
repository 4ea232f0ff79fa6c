"""The one page of this checkout, which says whether the web process runs."""

from django.http import HttpRequest, HttpResponse
from django.urls import path


def health(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - a view's signature
    """Say that the web process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


urlpatterns = [path("health/", health)]
