"""The admin's pages in a real browser, in Django's own theme and in django-unfold: `make test-browser`."""
