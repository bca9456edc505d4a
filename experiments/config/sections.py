"""Typed sections of a configuration: what all of them check, before what each checks of its own."""

import dataclasses
import math
import typing

from ml_collections import config_dict

from experiments.errors import UserError

# Types as a person calls them.
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the configuration: every value has the type that its field declares, and numbers are finite."""

    section: typing.ClassVar[str] = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            where = f"{self.section}.{field.name}" if self.section else field.name
            object.__setattr__(self, field.name, typed(field.type, getattr(self, field.name), where))


def from_mapping(cls, values, prefix):
    """Makes a section, and those inside it, of nested mappings; `prefix` is what leads to its fields.

    Raises:
        UserError: if a field is unknown or its value is not allowed.
    """
    has_fields = isinstance(values, (dict, config_dict.ConfigDict))
    require(has_fields, f"{prefix.rstrip('.') or 'The configuration'} has fields, got {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = [name for name in values if name not in fields]
    require(not unknown, f"Unknown configuration: {', '.join(prefix + name for name in unknown)}.")
    arguments = {}
    for name, value in values.items():
        kind = fields[name].type
        arguments[name] = from_mapping(kind, value, f"{prefix}{name}.") if dataclasses.is_dataclass(kind) else value
    return cls(**arguments)


def typed(kind, value, where):
    """Returns a value as the type that is declared: an integer is a float too, a list a tuple, nothing else changes."""
    if typing.get_origin(kind) is tuple:
        require(isinstance(value, (list, tuple)), f"{where} is a tuple, got {value!r}.")
        return tuple(typed(typing.get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    require(not wrong, f"{where}: {value!r} is no {NAMES.get(kind, kind.__name__)}.")
    require(kind is not float or math.isfinite(value), f"{where}: {value!r} is not finite.")
    return value


def require(condition, message):
    """Raises UserError with the message unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_at_least(section, config, smallest, *names):
    """Raises UserError unless the fields of those names are `smallest` or more."""
    for name in names:
        value = getattr(config, name)
        where = f"{section}.{name}" if section else name
        require(value >= smallest, f"{where} is at least {smallest}, got {value}.")


def require_one_of(where, value, allowed):
    """Raises UserError unless the value of the field called `where` is among the `allowed` ones."""
    require(value in allowed, f"{where}={value!r} is not one of {', '.join(allowed)}.")


def require_distinct(where, values):
    """Raises UserError if the field called `where` names one of its values twice."""
    require(len(set(values)) == len(values), f"{where} names one of its values twice.")
