"""Reading and writing YAML that people write: YAML 1.2, plain values only, every fault with file and line.

Refused: more than 1 MiB, nesting over 32, anchors and aliases (they can grow without bound), duplicate keys, tags, keys
that aren't text, numbers that aren't finite.
"""

from __future__ import annotations

import difflib
import io
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Tag, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from charter.errors import CharterError
from charter.store.disk import atomic_write, store_errors
from charter.suggest import did_you_mean

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
TAG = "kind="
OVERRIDE = "--set "  # begins the place of a setting that was given on the command line
PLAIN = {  # pydantic's words in plainer ones
    "int_parsing": "must be a whole number", "int_type": "must be a whole number",
    "int_from_float": "must be a whole number", "float_parsing": "must be a number", "float_type": "must be a number",
    "bool_parsing": "must be true or false", "bool_type": "must be true or false", "string_type": "must be text",
}  # fmt: skip
Location = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class YamlDocument:
    """A YAML file as plain Python values, with the place (file:line) of each key path, as ("principles", 3, "text")."""

    path: Path
    data: Any
    places: dict[Location, str]

    def place(self, location: Location = ()) -> str:
        """``file:line`` of a key path, or of the nearest enclosing one that has a place."""
        while location not in self.places and location:
            location = location[:-1]
        return self.places.get(location, f"{self.path}:1")


def load_yaml(path: Path, error: type[CharterError]) -> YamlDocument:
    """Read a YAML file.

    Raises:
        error: anything that this module refuses; names file and line.
        StoreError: the file can't be read.
    """
    with store_errors(path), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise error(f"{path}: larger than 1 MiB: split it, or check that this is the right file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        line = content[: broken.start].count(b"\n") + 1
        raise error(f"{path}:{line}: not UTF-8: save the file as UTF-8") from broken
    return parse_yaml(text, path, error)


def parse_yaml(text: str, path: Path, error: type[CharterError]) -> YamlDocument:
    """Parse YAML text; ``path`` is what faults name. Raises as ``load_yaml``."""
    reader = _Reader(path, error)
    try:
        reader.check_events(text)
        node = YAML(typ="safe", pure=True).compose(io.StringIO(text))
        data = reader.value(node, ()) if node is not None else None
    except MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        reason = " ".join((broken.problem or "can't be read").split())
        raise error(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {reason}: mend this line") from broken
    except YAMLError as broken:
        raise error(f"{path}: not valid YAML: {' '.join(str(broken).split())[:200]}: mend the file") from broken
    return YamlDocument(path, data, reader.places)


class _Reader:
    """Turns YAML nodes into plain values and remembers their places."""

    def __init__(self, path: Path, error: type[CharterError]) -> None:
        self._path, self._error = path, error
        self.places: dict[Location, str] = {}

    def check_events(self, text: str) -> None:
        """Refuse what would make composing the nodes unsafe, before composing them."""
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(io.StringIO(text)):
            if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
                raise self._fault(
                    event, "anchors (&) and aliases (*) are not allowed: write the value out, or quote it"
                )
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise self._fault(event, f"nested deeper than {MAX_DEPTH}: make it flatter")

    def _fault(self, at: Node | Event, message: str) -> CharterError:
        return self._error(f"{self._path}:{at.start_mark.line + 1}: {message}")

    def value(self, node: Node, location: Location) -> Any:
        """The plain value of a node."""
        self.places.setdefault(location, f"{self._path}:{node.start_mark.line + 1}")
        if isinstance(node, MappingNode):
            return self._mapping(node, location)
        if isinstance(node, SequenceNode):
            self._check_tag(node, "seq")
            return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: MappingNode, location: Location) -> dict[str, Any]:
        self._check_tag(node, "map")
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise self._fault(key_node, "a key must be plain text: put the value in quotes if it has braces")
            key = str(key_node.value)
            if key in found:
                raise self._fault(key_node, f"key {key!r} is there twice: delete one")
            self.places[(*location, key)] = f"{self._path}:{key_node.start_mark.line + 1}"
            found[key] = self.value(value_node, (*location, key))
        return found

    def _check_tag(self, node: Node, kind: str) -> None:
        if _tag(node) != f"tag:yaml.org,2002:{kind}":
            raise self._fault(node, f"tag {_tag(node)} is not allowed: write a plain value")

    def _scalar(self, node: Node) -> Any:
        kind = _tag(node).removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        try:
            match kind:
                case "str" | "timestamp":  # a date stays the text that it is
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return _integer(text)
                case "float":
                    number = float(
                        text.replace("_", "").lstrip("+").replace(".inf", "inf").replace(".nan", "nan").lower()
                    )
                    if math.isfinite(number):
                        return number
                    raise self._fault(node, f"{text} is not a finite number: write a number")
        except ValueError as broken:
            raise self._fault(node, f"{text[:40]!r} is not a number that can be read: put it in quotes") from broken
        raise self._fault(node, f"tag {_tag(node)} is not allowed: write a plain value")


def _tag(node: Node) -> str:
    return str(node.tag)


def _integer(text: str) -> int:
    plain = text.replace("_", "")
    try:
        return int(plain)
    except ValueError:
        return int(plain, 0)


def validate(model: type[M], document: YamlDocument, error: type[CharterError]) -> M:
    """Check a document against a pydantic model.

    Raises:
        error: the first fault, as one line with file:line, key path and what is expected.
    """
    if not isinstance(document.data, dict):
        raise error(
            f"{document.place()}: expected keys and values ({', '.join(model.model_fields)}), the file has none"
        )
    try:
        return model.model_validate(document.data)
    except ValidationError as broken:
        told = broken.errors(include_url=False)
        # a list all of whose entries are wrong is "too short" as well: no fault of its own
        places = [fault["loc"] for fault in told]
        faults = [f for f in told if f["type"] != "too_short" or not any(_is_within(p, f["loc"]) for p in places)]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        misspelt = [
            fault for fault in faults if fault["type"] == "extra_forbidden"
        ]  # the cause of a missing key, often
        location, message = _explain(model, (misspelt or faults)[0], document.place)
        place = document.place(location)
        # --set names the key itself
        is_named = place.startswith(f"{OVERRIDE}{dotted(location)}")
        where = f" {dotted(location)}:" if location and not is_named else ""
        raise error(f"{place}:{where} {' '.join(message.split())}{more}") from broken


def _explain(model: type[BaseModel], fault: Any, place: Callable[[Location], str]) -> tuple[Location, str]:
    full: Location = tuple(fault["loc"])
    location = tuple(part for part in full if not _is_tag(part))
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, full[:-1])
        if place(location).startswith(OVERRIDE):  # the whole key path, as it is typed there
            above = f"{dotted(location[:-1])}." if location[:-1] else ""
            given = place(location).removeprefix(OVERRIDE).removeprefix(above)
            near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
            rest = given.removeprefix(str(location[-1]))
            if near:
                return location, f"no such setting; did you mean {above}{near[0]}{rest}?"
            return location, f"no such setting; known are {', '.join(known)}"
        return location, f"unknown key: {did_you_mean(str(location[-1]), known)}"
    if fault["type"] == "union_tag_invalid":
        kinds = str(fault["ctx"]["expected_tags"]).replace("'kind=", "'")
        given = str(fault["ctx"]["tag"]).removeprefix(TAG)
        return (*location, "kind"), f"unknown kind {given[:40]!r}: expected one of {kinds}"
    if fault["type"] == "missing":
        return location[:-1], f"{location[-1]} is missing: add it"
    if fault["type"] in ("string_too_short", "string_pattern_mismatch") and not str(fault["input"]).strip():
        return location, "empty: write it, or delete the entry"
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return location, _required(model, full)
    message = PLAIN.get(fault["type"]) or str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    if isinstance(given, (str, int, float, bool)) and fault["type"] != "value_error":
        message += f", got {str(given)[:60]!r}" if isinstance(given, str) else f", got {given}"
    return location, message


def _is_within(place: Location, of: Location) -> bool:
    return len(place) > len(of) and place[: len(of)] == of


def _is_tag(part: str | int) -> bool:
    """pydantic puts the tag of a union's chosen member, as ``kind=committee``, into the key path."""
    return isinstance(part, str) and part.startswith(TAG)


def _required(model: type[BaseModel], location: Location) -> str:
    """What stands where keys and values should, in words: those that can't be left out are named."""
    needed = " and ".join(f"{key}:" for key, f in _model_at(model, location).model_fields.items() if f.is_required())
    if len(location) > 1 and isinstance(location[-1], int) and needed:
        return f"each {str(location[-2]).removesuffix('s')} needs {needed}"
    return "keys with values are needed here" + (f": {needed}" if needed else "")


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that a model knows at a key path."""
    return list(_model_at(model, location).model_fields)


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel]:
    annotation: Any = model
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
        elif _is_tag(part):
            annotation = _tagged(annotation, str(part)) or annotation
        model = _model_in(annotation) or model
    return model


def _tagged(annotation: Any, tag: str) -> Any:
    """The member of a union that carries a tag."""
    if any(isinstance(known, Tag) and known.tag == tag for known in getattr(annotation, "__metadata__", ())):
        return annotation
    return next((found for arg in typing.get_args(annotation) if (found := _tagged(arg, tag))), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return annotation
    return next((found for arg in typing.get_args(annotation) if (found := _model_in(arg))), None)


def dotted(location: Location) -> str:
    """A key path as people write it: ``principles[3].text``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain values as YAML text, keys in the given order."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 110
    yaml.allow_unicode = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises StoreError where it can't be written."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))
