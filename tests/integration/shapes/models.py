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


class Code:
    """A key of a type of its own, such as a ULID or a hashid."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class CodeField(models.CharField):  # type: ignore[type-arg]
    """A field that gives its values as a `Code`."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Code | None:
        """Read a value."""
        return None if value is None else Code(value)

    def to_python(self, value: Any) -> Any:
        """Read a key."""
        return value if value is None or isinstance(value, Code) else Code(str(value))

    def get_prep_value(self, value: Any) -> Any:
        """Write a value."""
        return None if value is None else str(value)

    def value_to_string(self, obj: models.Model) -> str:
        """Write a value for a serializer."""
        return str(self.value_from_object(obj))


class ByCode(models.Model):
    """A key of a type of its own."""

    id = CodeField(primary_key=True, max_length=26)

    class Meta:
        app_label = "shapes"


class ToCode(models.Model):
    """A foreign key to such a model."""

    target = models.ForeignKey(ByCode, on_delete=models.CASCADE, related_name="+")

    class Meta:
        app_label = "shapes"


class CodeLine(models.Model):
    """A composite key with such a part."""

    pk = models.CompositePrimaryKey("code", "number")
    code = CodeField(max_length=26)
    number = models.IntegerField()

    class Meta:
        app_label = "shapes"


class Shown(str):  # noqa: SLOT000 - it holds a number beside its text
    """The text that Python sees of a number in the database; it is equal to nothing but its like."""

    stored: int

    def __new__(cls, value: Any) -> Shown:
        """Make one of a number or a text."""
        text = str.__new__(cls, value if isinstance(value, str) else f"id-{value}")
        text.stored = int(text.removeprefix("id-"))
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shown) and other.stored == self.stored

    def __hash__(self) -> int:
        return hash(self.stored)


class ShownField(models.AutoField):  # type: ignore[type-arg]
    """A key that is converted on its way to the database."""

    def from_db_value(self, value: int | None, expression: Any, connection: Any) -> Shown | None:
        """Read a value."""
        return None if value is None else Shown(value)

    def to_python(self, value: Any) -> Any:
        """Read a key."""
        return value if value is None or isinstance(value, Shown) else Shown(value)

    def get_prep_value(self, value: Any) -> Any:
        """Write a value."""
        return None if value is None else Shown(value).stored


class ByShown(models.Model):
    """A key that is converted."""

    id = ShownField(primary_key=True)

    class Meta:
        app_label = "shapes"


class Living(models.Manager[Any]):
    """A manager that hides what was deleted softly."""

    def get_queryset(self) -> models.QuerySet[Any]:
        """Hide it."""
        return super().get_queryset().filter(deleted=False)


class Soft(models.Model):
    """A base manager that hides rows."""

    deleted = models.BooleanField(default=False)
    objects = Living()

    class Meta:
        app_label = "shapes"
        base_manager_name = "objects"


class SoftProxy(Soft):
    """A proxy, which inherits that base manager."""

    class Meta:
        app_label = "shapes"
        proxy = True
