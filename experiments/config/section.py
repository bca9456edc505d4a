"""The base of all sections of the configuration: typed fields, and checks that name the field."""

import dataclasses
import math
import types
import typing
from collections.abc import Collection

from ml_collections import config_dict

from experiments.errors import UserError

T = typing.TypeVar("T", bound="Section")
# Types in error messages
NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the configuration: every value has the type that its field declares, and numbers are finite."""

    section: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = typed(field.type, getattr(self, field.name), self.full_name(field.name))
            object.__setattr__(self, field.name, value)

    def full_name(self, name: str) -> str:
        """Returns the name of a field in a flag, after `--config.`."""
        return f"{self.section}.{name}" if self.section else name

    def require_at_least(self, smallest: float, *names: str) -> None:
        """Raises UserError unless the named fields are `smallest` or more."""
        for name in names:
            value = getattr(self, name)
            require(value >= smallest, f"{self.full_name(name)} must be at least {smallest}, got {value}.")

    def require_in(self, interval: str, *names: str) -> None:
        """Raises UserError unless the named fields lie in an interval, such as `[0, 1)`."""
        low, high = map(float, interval[1:-1].split(","))
        for name in names:
            value = getattr(self, name)
            excluded = (value == low and interval[0] == "(") or (value == high and interval[-1] == ")")
            require(low <= value <= high and not excluded, f"{self.full_name(name)} must be in {interval}.")

    def require_one_of(self, name: str, allowed: Collection[str]) -> None:
        """Raises UserError unless the value of a field, or each of several, is among the `allowed` ones."""
        values = getattr(self, name)
        for value in values if isinstance(values, tuple) else (values,):
            require(value in allowed, f"{self.full_name(name)}={value!r} is not one of {', '.join(allowed)}.")

    def require_distinct(self, *names: str) -> None:
        """Raises UserError if one of the named fields has the same value twice."""
        for name in names:
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{self.full_name(name)} has the same value twice.")


def from_mapping(cls: type[T], values: dict[str, typing.Any] | config_dict.ConfigDict, prefix: str) -> T:
    """Makes a section, and its subsections, from nested mappings; `prefix` precedes the names of its fields.

    Raises:
        UserError: if a field is unknown or its value is not allowed.
    """
    has_fields = isinstance(values, (dict, config_dict.ConfigDict))
    require(has_fields, f"{prefix.rstrip('.') or 'The configuration'} must be a mapping of fields, got {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = [name for name in values if name not in fields]
    require(not unknown, f"Unknown configuration: {', '.join(prefix + name for name in unknown)}.")
    arguments = {}
    for name, value in values.items():
        kind = fields[name].type
        if dataclasses.is_dataclass(kind):
            value = from_mapping(typing.cast(type[Section], kind), value, f"{prefix}{name}.")
        arguments[name] = value
    return cls(**arguments)


def typed(kind: typing.Any, value: typing.Any, where: str) -> typing.Any:
    """Returns a value as its declared type: integers become floats, lists tuples; any other mismatch is an error."""
    if isinstance(kind, types.UnionType):  # of one value and a tuple of several
        one, several = typing.get_args(kind)
        kind = several if isinstance(value, (list, tuple)) else one
    if typing.get_origin(kind) is tuple:
        require(isinstance(value, (list, tuple)), f"{where} must be a tuple, got {value!r}.")
        return tuple(typed(typing.get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    require(not wrong, f"{where}: expected {NAMES.get(kind, kind.__name__)}, got {value!r}.")
    require(kind is not float or math.isfinite(value), f"{where}: {value!r} is not finite.")
    return value


def require(condition: object, message: str) -> None:
    """Raises UserError with the message unless the condition holds."""
    if not condition:
        raise UserError(message)
