"""Encode and decode values of Django that are no model instances: the data of a form, and a file of a model's field."""

from __future__ import annotations

from typing import Any, Final

from django.core.files.storage import InvalidStorageError, default_storage, storages
from django.db.models import FileField
from django.db.models.fields.files import FieldFile
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from signalbus.compat.django_internals import frozen_query_dict, is_mutable, is_saved_file
from signalbus.exceptions import PayloadError, UnknownClass
from signalbus.wire.values.references import label_of, model_named
from signalbus.wire.values.registered_types import TypeAdapter, list_of


def adapter_for(kind: type) -> TypeAdapter | None:
    """Return the adapter for a type."""
    return _FIELD_FILE if issubclass(kind, FieldFile) else _BY_TYPE.get(kind)


def _lists(value: MultiValueDict[Any, Any]) -> dict[str, list[Any]]:
    return {key: list(values) for key, values in value.lists()}


def _parts_of_query(value: QueryDict) -> dict[str, Any]:
    return {"lists": _lists(value), "encoding": value.encoding, "mutable": is_mutable(value)}


def _query(parts: Any) -> QueryDict:
    result = QueryDict(mutable=True, encoding=parts["encoding"])
    for key, values in parts["lists"].items():
        result.setlist(key, list_of(values))
    return result if parts["mutable"] else frozen_query_dict(result)


def _multi_value_dict(lists: Any) -> MultiValueDict[str, Any]:
    return MultiValueDict({key: list_of(values) for key, values in lists.items()})


def _parts_of_file(value: Any) -> dict[str, Any]:
    field = value.field
    if type(value) is not field.attr_class:
        raise PayloadError("a file of another class than its field makes: send the model instance, or value.name")
    if not is_saved_file(value):
        raise PayloadError("a file that is not saved yet, whose content would be lost: save it first")
    label = label_of(field.model if value.instance is None else type(value.instance))
    return {
        "model": label,
        "instance": value.instance,
        "field": field.name,
        "name": value.name,
        "storage": None if value.storage is field.storage else _alias_of(value.storage),
    }


def _alias_of(storage: Any) -> str:
    if storage is default_storage:
        return "default"
    for alias in storages.backends:
        if storages[alias] is storage:
            return str(alias)
    raise PayloadError("a file in a storage that is neither its field's nor in STORAGES: add it to STORAGES")


def _file(parts: Any) -> Any:
    model, instance = model_named(parts["model"]), parts["instance"]
    field = next((each for each in model._meta.concrete_fields if each.name == parts["field"]), None)  # noqa: SLF001 - documented
    if not isinstance(field, FileField):
        raise UnknownClass(f"{parts['model']}.{parts['field']}", "no file field in this process: roll this worker out")
    result = field.attr_class(instance, field, parts["name"])
    if parts["storage"] is not None:
        try:
            result.storage = storages[parts["storage"]]
        except InvalidStorageError as error:
            name = f"the storage {parts['storage']!r}"
            raise UnknownClass(name, "add it to STORAGES of this worker") from error
    return result


_FIELD_FILE: Final = TypeAdapter(name="django:field-file", encode=_parts_of_file, decode=_file)
_BY_TYPE: Final[dict[type, TypeAdapter]] = {
    QueryDict: TypeAdapter(name="django:query-dict", encode=_parts_of_query, decode=_query),
    MultiValueDict: TypeAdapter(name="django:multi-value-dict", encode=_lists, decode=_multi_value_dict),
}
BY_NAME: Final[dict[str, TypeAdapter]] = {adapter.name: adapter for adapter in (_FIELD_FILE, *_BY_TYPE.values())}
