"""The pages of the tests' project: the checkout's, and Django's admin."""

from django.contrib import admin
from django.urls import path

from config.urls import urlpatterns as pages_of_the_checkout

urlpatterns = [*pages_of_the_checkout, path("admin/", admin.site.urls)]
