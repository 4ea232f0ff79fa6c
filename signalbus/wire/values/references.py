"""Name rows by label and primary key, and find the model of a name again; define what a message says of a row.

`encoder` writes references and `decoder` reads them; the rows are loaded by `receiving/invoking/row_loading`.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, NamedTuple

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import AutoField, BigAutoField, Manager, Model, SmallAutoField

from signalbus.exceptions import Garbage, MissingRow, PayloadError, UnknownClass
from signalbus.wire.values.class_names import Installed, shown, unwrapped
from signalbus.wire.values.primary_keys import MAX_KEY, NoPlainForm, cleaned, typed

_AUTO_FIELDS: Final = frozenset({AutoField, BigAutoField, SmallAutoField})
_AS_DEFAULT: Final = frozenset({None, DEFAULT_DB_ALIAS})  # what an instance that lives there may say of itself

# Models that were found to be the registered ones: their label, and whether an int is always their key's own type.
_models: dict[type[Model], tuple[str, bool]] = {}


class ForeignModel(PayloadError):  # noqa: N818 - says what it is
    """A model of another registry than the installed apps': a migration's of the past, or its recorder's."""


class Reference(NamedTuple):
    """A row, as a message names it.

    Args:
        label: the model's label, ``admissions.Cohort``; a proxy's own.
        pk: the primary key, as it travels: of the type that the model's field gives it, or, if that is a type of the
            field's own, in a form that the field reads back (see `lookup_key`); a tuple for a composite one.
        using: the alias of its database; None where the worker's router says it.
    """

    label: str
    pk: object
    using: str | None = None

    def __str__(self) -> str:
        text = f"{self.label} {shown(str(self.pk))}"
        return text if self.using is None else f"{text} in {self.using}"


class Snapshot:
    """A model's field values instead of a reference to its row; it arrives as an instance of the same class.

    Args:
        instance: the model instance; the fields that are loaded when the signal is sent are what travels.

    Raises:
        PayloadError: not a model instance.
    """

    __slots__ = ("instance",)

    def __init__(self, instance: Model) -> None:
        plain = unwrapped(instance)
        if not isinstance(plain, Model):
            raise PayloadError(f"signalbus.Snapshot takes a model instance, not {type(plain).__qualname__}")
        self.instance: Model = plain

    def __repr__(self) -> str:
        return f"Snapshot({self.instance!r})"


def is_foreign(model: type[Model]) -> bool:
    """Return whether a model belongs to another registry than the apps': a migration's or its recorder's."""
    return model._meta.apps is not apps  # noqa: SLF001  (Django documents _meta)


def has_base_manager(label: str) -> bool:
    """Return whether a model has a base manager other than Django's, which may hide rows; it may be inherited."""
    return type(model_named(label)._base_manager) is not Manager  # noqa: SLF001  (Django documents it)


def is_anonymous_user(kind: type) -> bool:
    """Return whether this is the class of ``request.user`` for a visitor who is not logged in."""
    # By name: its module cannot be imported before the apps are loaded, nor where auth is not installed.
    return kind.__qualname__ == "AnonymousUser" and kind.__module__ == "django.contrib.auth.models"


def anonymous_user() -> Any:
    """Make Django's ``AnonymousUser``, the user of a visitor who is not logged in.

    Raises:
        UnknownClass: this process has no ``django.contrib.auth``.
    """
    name = "django.contrib.auth.models:AnonymousUser"
    if not apps.is_installed("django.contrib.auth"):
        raise UnknownClass(name, 'add "django.contrib.auth" to INSTALLED_APPS of this worker')
    return importlib.import_module("django.contrib.auth.models").AnonymousUser()


def label_of(model: type[Model]) -> str:
    """Return the label by which a worker finds this model.

    Raises:
        PayloadError: it would find none, or another one.
    """
    return _known(model)[0]


def _known(model: type[Model]) -> tuple[str, bool]:
    known = _models.get(model)
    if known is None:
        meta = model._meta  # noqa: SLF001  (Django documents _meta)
        if is_foreign(model):
            raise ForeignModel(f"{meta.label} is a model of another registry than the installed apps'")
        try:
            registered = apps.get_model(meta.label)
        except LookupError:
            registered = None
        if registered is not model:
            raise PayloadError(f"{meta.label} is not a model of an installed app: a worker would not find it")
        known = _models[model] = (meta.label, type(meta.pk) in _AUTO_FIELDS)
    return known


def reference_to(instance: Model) -> Reference | None:
    """Name an instance's row.

    Returns:
        The reference, or None for an instance that has no row: one that is unsaved, or was deleted.

    Raises:
        PayloadError: a worker would not find the model, or no row of it can have this key.
    """
    model = type(instance)
    label, int_key = _known(model)
    if instance._state.adding:  # noqa: SLF001  (Django documents _state)
        return None
    pk = instance.pk
    if pk is None or (type(pk) is tuple and None in pk):
        return None
    if not (int_key and type(pk) is int):
        try:
            pk = cleaned(model, pk)
        except NoPlainForm as error:
            raise PayloadError(
                f"the primary key of {label} is a {type(pk).__qualname__}, and its field's to_python() makes no equal "
                "key of what get_prep_value() or str() give of it: send the key's text, or signalbus.Snapshot(instance)"
            ) from error
        except (ValidationError, ValueError, TypeError) as error:
            raise PayloadError(f"{pk!r} is no primary key of {label}: save the instance first") from error
    return Reference(label, pk, _alias(model, instance))


def plain_reference(value: Any) -> list[Any] | None:
    """Return label and key of a row that every worker finds by them alone; None if `reference_to` has to decide.

    Args:
        value: anything.
    """
    known = _models.get(type(value))
    if known is None or not known[1] or router.routers:
        return None
    state = value._state  # noqa: SLF001  (Django documents _state)
    pk = value.pk
    return None if state.adding or type(pk) is not int or state.db not in _AS_DEFAULT else [known[0], pk]


def _alias(model: type[Model], instance: Model) -> str | None:
    """Name the database that an instance is written to, unless each worker finds it by itself.

    The router decides, not the database that the instance was read from, which may be a replica. It may answer by what
    is active here and not in a worker (a tenant), so only the default database can be left out.
    """
    if not router.routers and instance._state.db in _AS_DEFAULT:  # noqa: SLF001  (Django documents _state)
        return None
    written = router.db_for_write(model, instance=instance)
    return None if written == DEFAULT_DB_ALIAS == router.db_for_write(model) else written


def reference_from(label: str, pk: object, using: str | None = None) -> Reference:
    """Read a reference that a message brought.

    Raises:
        MissingRow: no row can have this key.
        UnknownClass: there is no such model, or no such database, here.
    """
    model = model_named(label)
    if using is not None and using not in list(connections):
        raise UnknownClass(shown(f"{label} in {using}"), "no such database here: add it to DATABASES of this worker")
    reference = Reference(label, pk, using)
    try:
        if _known(model)[1] and type(pk) is int and abs(pk) <= MAX_KEY:
            return reference
        clean = Reference(label, cleaned(model, pk), using)
        hash(clean)
    except ValidationError as error:
        raise MissingRow((str(reference),)) from error
    except (ValueError, TypeError) as error:
        raise Garbage("a reference that names no row") from error
    return clean


def lookup_key(model: type[Model], pk: Any) -> Any:
    """Return the key of a reference in the type of the model's field, as a query takes it."""
    return pk if _known(model)[1] and type(pk) is int else typed(model, pk)


def model_named(label: str) -> type[Model]:
    """Find the model that a message names.

    Raises:
        UnknownClass: no installed app has it.
        ValueError: no model can have such a label.
    """
    known = Installed.read().models
    model = known.get(label)
    if model is not None:
        return model
    try:
        model = apps.get_model(label)
    except LookupError as error:
        raise UnknownClass(shown(label), "no installed app has this model: roll this worker out") from error
    if label == model._meta.label:  # noqa: SLF001  (Django documents _meta); else there is no end of ways to write it
        known[label] = model
    return model
