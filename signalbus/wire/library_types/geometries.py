"""Encode and decode the geometries of GeoDjango: as WKB with their SRID."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.gis.geos import GEOSGeometry, LinearRing
from django.contrib.gis.geos.prototypes.io import WKBWriter

from signalbus.exceptions import PayloadError
from signalbus.wire.values.registered_types import TypeAdapter

_PACKAGE: Final = "django.contrib.gis.geos"


def adapter_for(kind: type) -> TypeAdapter | None:
    """Return the adapter for a type; None for a subclass of the host's."""
    if not issubclass(kind, GEOSGeometry) or not kind.__module__.startswith(_PACKAGE):
        return None
    return _RING if kind is LinearRing else _GEOMETRY


def _parts(value: GEOSGeometry) -> list[Any]:
    if getattr(value, "hasm", False):
        raise PayloadError("a geometry with M values, which its WKB would lose: send value.ewkt")
    return [bytes(WKBWriter(dim=3 if value.hasz else 2).write(value)), value.srid]


def _geometry(parts: Any) -> GEOSGeometry:
    wkb, srid = parts
    if type(wkb) is not bytes or type(srid) not in (int, type(None)):
        raise TypeError(parts)
    return GEOSGeometry(memoryview(wkb), srid=srid)


def _ring(parts: Any) -> LinearRing:
    line: Any = _geometry(parts)
    return LinearRing(line.coords, srid=line.srid)


_GEOMETRY: Final = TypeAdapter(name="geos:geometry", encode=_parts, decode=_geometry)
_RING: Final = TypeAdapter(name="geos:linear-ring", encode=_parts, decode=_ring)
BY_NAME: Final[dict[str, TypeAdapter]] = {adapter.name: adapter for adapter in (_GEOMETRY, _RING)}
