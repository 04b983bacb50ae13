"""TOML recipes ↔ the dataclasses of `config.py`, with errors that name the key and the nearest known one.

A recipe has one table per section (`[model]`, `[train]`, …); a verb reads the sections that it has fields for.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from janeox.errors import JaneoxError
from janeox.settings.run import Run

T = TypeVar("T")

SECTIONS = {f.name for f in dataclasses.fields(Run)}


def read_recipe(cls: type[T], path: Path | str) -> T:
    """Fills dataclass `cls` from a TOML recipe, taking only the sections that `cls` has.

    Raises:
        JaneoxError: the file is missing or not TOML, or a key is unknown (names the nearest known one) or of the
            wrong type.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JaneoxError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JaneoxError(f"{path}: not a TOML file: {error}") from error
    own = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in own | SECTIONS:
            raise JaneoxError(f"{path}: unknown key {key!r}{nearest(key, own | SECTIONS)}")
    try:
        return from_table(cls, {key: value for key, value in table.items() if key in own})
    except JaneoxError as error:
        raise JaneoxError(f"{path}: {error}") from error


def from_table(cls: type[T], table: dict[str, Any], where: str = "") -> T:
    """Builds dataclass `cls` from nested dicts, checking names and types; `where` is the dotted path so far."""
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise JaneoxError(f"unknown key {where + key!r}{nearest(key, hints, where)}")
        values[key] = _convert(hints[key], value, where + key)
    return cls(**values)


def nearest(word: str, known: typing.Iterable[str], prefix: str = "") -> str:
    """`; did you mean 'x'?` for the known name most like `word`, or a list of the names where none is like it."""
    names = sorted(known)
    like = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if like:
        return f"; did you mean {prefix + like[0]!r}?"
    return f"; known are {', '.join(names)}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Checks one TOML value against a type hint; widens int to float, str to Path and list to tuple."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = JaneoxError(f"{where} = {value!r}: expected {_type_name(hint)}")
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise wrong
        return from_table(hint, value, where + ".")  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments:
            raise wrong
        return value
    if origin is types.UnionType:
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (tuple, list) and isinstance(value, list):
        return origin(_convert(arguments[0], item, where) for item in value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise wrong


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint).replace("typing.", "")


def to_table(value: Any) -> Any:
    """The inverse of `from_table`: nested dicts that TOML and JSON can hold (None is left out)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {key: to_table(item) for key, item in items.items() if item is not None}
    if isinstance(value, dict):
        return {key: to_table(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_table(item) for item in value]
    return str(value) if isinstance(value, Path) else value
