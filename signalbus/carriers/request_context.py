"""Carry the ids of a request and of its user: a middleware notes them, two carriers restore them around deliveries.

A host lists `RequestMiddleware` in ``MIDDLEWARE``, `RequestId` and `UserId` in ``SIGNALBUS["CARRY"]``; receivers call
`request_id` and `user_id`.
"""

from __future__ import annotations

import re
import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest

from signalbus.compat.django_internals import user_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from django.http import HttpResponseBase

T = TypeVar("T")

HEADER: Final = "X-Request-ID"
_HARMLESS: Final = re.compile(r"[\w.:/+=@-]{1,100}", re.ASCII)

_request_id: ContextVar[str | None] = ContextVar("signalbus_request_id", default=None)
# The request, whose user is looked up when a signal is sent; or the user's id.
_user: ContextVar[HttpRequest | int | str | None] = ContextVar("signalbus_user", default=None)


def request_id() -> str | None:
    """Return the id of the request that runs, or from which the running delivery was sent; None if there is none."""
    return _request_id.get()


def user_id() -> int | str | None:
    """Return the primary key of the user of that request; None for visitors who are not logged in.

    On the thread of an event loop, the user is known once it has been loaded, as by ``await request.auser()``.
    """
    found = _user.get()
    if not isinstance(found, HttpRequest):
        return found
    user = user_of(found)
    pk = None if user is None else user.pk
    return pk if pk is None or type(pk) is int else str(pk)


@contextmanager
def as_request(request_id: str | None = None, user_id: int | str | None = None) -> Iterator[None]:
    """Send with these ids, in work that no request began: a management command, a periodic task.

    Args:
        request_id: the id of the run; a new one if it is None.
        user_id: the primary key of the user for whom it works, if any.
    """
    with _set(_request_id, uuid.uuid4().hex if request_id is None else request_id), _set(_user, user_id):
        yield


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class RequestMiddleware:
    """Note the id and the user of each request, for what its view sends; for sync and async views.

    The id is the header ``X-Request-ID`` of the request, if it is a short text without spaces; else a new one.
    Place it anywhere in ``MIDDLEWARE``.
    """

    sync_capable: bool = True
    async_capable: bool = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Run the view."""
        if self._is_async:
            return self._run(request)
        with _noted(request):
            response: HttpResponseBase = self._get_response(request)
            return response

    async def _run(self, request: HttpRequest) -> HttpResponseBase:
        with _noted(request):
            response: HttpResponseBase = await self._get_response(request)
            return response


@contextmanager
def _noted(request: HttpRequest) -> Iterator[None]:
    given = request.headers.get(HEADER, "")
    with _set(_request_id, given if _HARMLESS.fullmatch(given) else uuid.uuid4().hex), _set(_user, request):
        yield


class RequestId:
    """Carries the id of the request: `request_id` returns it in receivers."""

    name: str = "request_id"

    def capture(self) -> str | None:
        """Return the id of the request."""
        return request_id()

    def restore(self, value: str, /) -> AbstractContextManager[None]:
        """Let `request_id` return the id."""
        return _set(_request_id, value)


class UserId:
    """Carries the primary key of the request's user: `user_id` returns it in receivers. No row is carried."""

    name: str = "user_id"

    def capture(self) -> int | str | None:
        """Return the primary key of the user."""
        return user_id()

    def restore(self, value: int | str, /) -> AbstractContextManager[None]:
        """Let `user_id` return the primary key."""
        return _set(_user, value)
