"""The addresses of ``make demo``: those of the checkout, and the web app."""

from django.urls import include, path

from config.urls import urlpatterns as pages_of_the_checkout

urlpatterns = [*pages_of_the_checkout, path("signalbus/", include("signalbus.web.urls"))]
