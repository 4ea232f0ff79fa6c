"""One model, enumeration or dataclass of each kind that a payload can contain."""

# ruff: noqa: DJ008  (nobody reads these)

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum, IntFlag
from typing import Any, ClassVar

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now


class Temperature:
    """A value of a type that the codec does not know."""

    def __init__(self, kelvin: int) -> None:
        self.kelvin = kelvin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Temperature) and self.kelvin == other.kelvin

    __hash__ = None  # type: ignore[assignment]


class TemperatureField(models.Field):  # type: ignore[type-arg]
    """A field that writes its values as text, as Django's serializers ask of it."""

    def to_python(self, value: Any) -> Any:
        if value is None or isinstance(value, Temperature):
            return value
        try:
            return Temperature(int(value.removesuffix("K")))
        except ValueError as error:
            raise ValidationError("no temperature") from error

    def value_to_string(self, obj: models.Model) -> str:
        return f"{self.value_from_object(obj).kelvin}K"


class Amount:
    """The value that a descriptor makes of a text, as a money field does."""

    def __init__(self, text: object) -> None:
        self.text = str(text)

    def __str__(self) -> str:
        return self.text


class AmountField(models.CharField):  # type: ignore[type-arg]
    """A field whose descriptor returns an `Amount`, and whose column stores a text."""

    class Descriptor:
        """The attribute of the model."""

        def __init__(self, field: Any) -> None:
            self.field = field

        def __get__(self, instance: Any, owner: object = None) -> Any:
            if instance is None:
                return self
            value = vars(instance)[self.field.attname]
            return value if value is None or isinstance(value, Amount) else Amount(value)

        def __set__(self, instance: Any, value: Any) -> None:
            vars(instance)[self.field.attname] = value

    def contribute_to_class(self, cls: type[models.Model], name: str, **options: Any) -> None:  # type: ignore[override]
        super().contribute_to_class(cls, name, **options)
        setattr(cls, name, self.Descriptor(self))

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else str(value)

    def to_python(self, value: Any) -> Any:
        return None if value is None else str(value)

    def value_to_string(self, obj: models.Model) -> str:
        return str(self.value_from_object(obj))


class Priced(models.Model):
    """A model whose values in memory are not the values in its row."""

    price = AmountField(max_length=20, null=True)
    answers = models.JSONField(null=True)
    grade = models.IntegerField(null=True)
    size = models.CharField(max_length=20, null=True)  # noqa: DJ001 - nobody reads it

    class Meta:
        app_label = "wire_app"


def reversed_text(text: str) -> str:
    """Encrypt or decrypt: nobody reads it at a glance."""
    return text[::-1]


class EncryptedField(models.TextField):  # type: ignore[type-arg]
    """A field with plain text in memory and another text in its column, as libraries for encrypted fields have it."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else reversed_text(str(value))

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else self.to_python(reversed_text(value))


class EncryptedBinaryField(models.IntegerField):  # type: ignore[type-arg]
    """The same for numbers, in a column of bytes."""

    def get_internal_type(self) -> str:
        return "BinaryField"

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return None if value is None else connection.Database.Binary(reversed_text(str(value)).encode())

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else int(reversed_text(bytes(value).decode()))


class Patient(models.Model):
    """A model with secrets."""

    name = models.CharField(max_length=20)
    diagnosis = EncryptedField(null=True)
    number = EncryptedBinaryField(null=True)

    class Meta:
        app_label = "wire_app"


class Picky(models.Model):
    """A model that raises while an instance is made, like one whose file is gone."""

    path = models.CharField(max_length=20)

    class Meta:
        app_label = "wire_app"

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **kwargs: Any) -> Any:
        raise FileNotFoundError(f"no file {values}")


class Thing(models.Model):
    """A model with an ordinary key, and fields whose values are not plain data."""

    name = models.CharField(max_length=50, default="thing")
    document = models.FileField(null=True)
    heat = TemperatureField(null=True)
    raw = models.BinaryField(null=True)
    extra = models.JSONField(null=True)

    class Meta:
        app_label = "wire_app"


class ThingProxy(Thing):
    """A proxy, which must arrive as one."""

    class Meta:
        app_label = "wire_app"
        proxy = True


class SpecialThing(Thing):
    """A child in a table of its own, whose key is a relation."""

    class Meta:
        app_label = "wire_app"


class Tagged(models.Model):
    """A model whose key is a UUID that exists before the row does."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)

    class Meta:
        app_label = "wire_app"


class Dated(models.Model):
    """A model with a value that the database makes."""

    made_at = models.DateTimeField(db_default=Now())
    note = models.CharField(max_length=50)

    class Meta:
        app_label = "wire_app"


class Colour(models.TextChoices):
    """Texts to choose from."""

    RED = "red", "Red"
    BLUE = "blue", "Blue"


class Named(models.Model):
    """A model whose key is a text."""

    slug = models.CharField(primary_key=True, max_length=20, choices=Colour)

    class Meta:
        app_label = "wire_app"


class Line(models.Model):
    """A model with a composite key."""

    pk = models.CompositePrimaryKey("order", "number")
    order = models.IntegerField()
    number = models.IntegerField()

    class Meta:
        app_label = "wire_app"


class Base(models.Model):
    """An abstract model: a class without rows."""

    class Meta:
        app_label = "wire_app"
        abstract = True


class Size(Enum):
    """Members with values that JSON could not hold."""

    SMALL = object()
    LARGE = (1, 2)
    BIG = LARGE


class Rights(Flag):
    """Members that combine."""

    READ = 1
    WRITE = 2


class Bits(IntFlag):
    """Flags that keep bits without a name."""

    A = 1
    B = 2


class Visitor(AnonymousUser):
    """A kind of anonymous user."""


@dataclass
class Point:
    """Two fields, and an ``__init__`` that must not be called again."""

    constructed: ClassVar[int] = 0
    x: Any
    y: Any = 0

    def __post_init__(self) -> None:
        type(self).constructed += 1


@dataclass
class Place(Point):
    """A subclass of a dataclass."""

    city: str = ""


@dataclass(frozen=True, slots=True)
class Frozen:
    """Frozen, with slots, hashable."""

    a: Any
    b: tuple[Any, ...] = field(default=(), compare=True)


@dataclass(frozen=True)
class FrozenDict:
    """Frozen, without slots, and with a method that hides nothing."""

    a: Any

    class Nested(Enum):
        """Nested in a dataclass."""

        N = "n"


@dataclass
class Number(int):
    """A dataclass on top of a built-in type: an instance holds more than its fields say."""

    unit: str = "m"

    def __init__(self, value: int) -> None:
        self.unit = "m"


class Plain:
    """A class of an installed app."""

    class Inner(IntEnum):
        """Nested, and a subclass of int."""

        ONE = 1

    @staticmethod
    def announce() -> None:
        """A function that stands in a class."""


def plain_function() -> None:
    """A function of an installed app."""


nameless = lambda: None  # noqa: E731  (what cannot travel)


def local_class() -> type:
    """Make a class that no worker finds."""

    class Local:
        pass

    return Local
