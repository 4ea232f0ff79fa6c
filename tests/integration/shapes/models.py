"""Models with every field that Django has, every kind of key, and every way to say how rows are read."""

# ruff: noqa: DJ001, DJ008  (nobody reads these)

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.postgres.fields import ArrayField, DateTimeRangeField
from django.db import models
from django.db.models import F
from django.db.models.functions import Now


class Kelvin(models.Field):  # type: ignore[type-arg]
    """A field whose values are other in the database than in Python."""

    def db_type(self, connection: Any) -> str:
        """Return the type of its column."""
        return "varchar(20)"

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> complex | None:
        """Read a value."""
        return None if value is None else complex(value)

    def to_python(self, value: Any) -> Any:
        """Read a key."""
        return complex(value)

    def get_prep_value(self, value: Any) -> Any:
        """Write a value."""
        return None if value is None else str(value)


class Plain(models.Model):
    """What others refer to."""

    name = models.CharField(max_length=20)

    class Meta:
        app_label = "shapes"
        ordering = ("-name",)


class Proxy(Plain):
    """The same row as another class."""

    class Meta:
        app_label = "shapes"
        proxy = True


class Every(models.Model):
    """Every field."""

    number = models.BigIntegerField(null=True)
    raw = models.BinaryField(null=True)
    truth = models.BooleanField(null=True)
    char = models.CharField(max_length=20, null=True, db_column="other name")
    date = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    decimal = models.DecimalField(null=True, max_digits=12, decimal_places=4)
    duration = models.DurationField(null=True)
    email = models.EmailField(null=True)
    file = models.FileField(null=True)
    float = models.FloatField(null=True)
    ip = models.GenericIPAddressField(null=True)
    integer = models.IntegerField(null=True)
    json = models.JSONField(null=True)
    positive = models.PositiveBigIntegerField(null=True)
    slug = models.SlugField(null=True)
    small = models.SmallIntegerField(null=True)
    text = models.TextField(null=True)
    time = models.TimeField(null=True)
    url = models.URLField(null=True)
    uuid = models.UUIDField(null=True)
    heat = Kelvin(null=True)
    plain = models.ForeignKey(Plain, on_delete=models.CASCADE, null=True, related_name="+")
    single = models.OneToOneField(Plain, on_delete=models.CASCADE, null=True, related_name="+")
    twice = models.GeneratedField(expression=F("integer") * 2, output_field=models.IntegerField(), db_persist=True)
    made_at = models.DateTimeField(db_default=Now())
    others = models.ManyToManyField(Plain, related_name="+")

    class Meta:
        app_label = "shapes"


class Ranges(models.Model):
    """What only PostgreSQL has."""

    numbers = ArrayField(models.DecimalField(max_digits=5, decimal_places=2))
    span = DateTimeRangeField()

    class Meta:
        app_label = "shapes"


class ByText(models.Model):
    """A text for a key."""

    slug = models.CharField(primary_key=True, max_length=20)

    class Meta:
        app_label = "shapes"


class ByUUID(models.Model):
    """A UUID for a key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)

    class Meta:
        app_label = "shapes"


class ByMoment(models.Model):
    """A moment for a key."""

    at = models.DateTimeField(primary_key=True)

    class Meta:
        app_label = "shapes"


class ByDecimal(models.Model):
    """A decimal for a key."""

    amount = models.DecimalField(primary_key=True, max_digits=10, decimal_places=2)

    class Meta:
        app_label = "shapes"


class ByHeat(models.Model):
    """A key that is other in the database."""

    heat = Kelvin(primary_key=True)

    class Meta:
        app_label = "shapes"


class Child(Plain):
    """A child in a table of its own."""

    more = models.CharField(max_length=20)

    class Meta:
        app_label = "shapes"


class ByRelation(models.Model):
    """A key that is a relation."""

    plain = models.OneToOneField(Plain, on_delete=models.CASCADE, primary_key=True, related_name="+")

    class Meta:
        app_label = "shapes"


class Line(models.Model):
    """A composite key."""

    pk = models.CompositePrimaryKey("order", "number")
    order = models.IntegerField()
    number = models.IntegerField()

    class Meta:
        app_label = "shapes"


class Shouting(models.Manager[Any]):
    """A manager that adds something to each row."""

    def get_queryset(self) -> models.QuerySet[Any]:
        """Add it."""
        rows: models.QuerySet[Any] = super().get_queryset().annotate(shouted=models.functions.Upper("name"))
        return rows


class Managed(models.Model):
    """A base manager of its own."""

    name = models.CharField(max_length=20)
    objects = Shouting()

    class Meta:
        app_label = "shapes"
        base_manager_name = "objects"


class Remembering(models.Model):
    """It remembers what was loaded, as Django's documentation shows it."""

    name = models.CharField(max_length=20)

    class Meta:
        app_label = "shapes"

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **kwargs: Any) -> Any:
        """Remember it."""
        instance: Any = super().from_db(db, field_names, values, **kwargs)
        instance.loaded = dict(zip(field_names, values, strict=True))
        return instance
