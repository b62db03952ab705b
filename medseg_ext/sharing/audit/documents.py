"""Read JSON and YAML as MONAI does, keeping the line of every text, and refuse what could be read in two ways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from json import scanner
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]
from typing import Any

import yaml

#: A config is read by a person: what is larger or deeper is there to stop programs.
MOST_BYTES = 8 * 2**20
MOST_LEVELS = 60
MOST_NODES = 500_000

_YAML_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp")
}
_WHITESPACE = " \t\n\r"


class DocumentError(ValueError):
    """A text that is no plain JSON or YAML.

    Args:
        found: what is there. line: where, from 1.
    """

    def __init__(self, found: str, line: int = 0) -> None:
        super().__init__(found)
        self.line = line


@dataclass
class Node:
    """A value of a document.

    Args:
        line: where it starts, from 1.
        value: a text, number, boolean or None; for lists and mappings see the others.
        items: of a list. pairs: of a mapping, with the line of each key.
    """

    line: int
    value: Any = None
    items: list[Node] | None = None
    pairs: list[tuple[str, Node]] | None = field(default=None)

    @property
    def text(self) -> str | None:
        """The text that it is, if it is one."""
        return self.value if isinstance(self.value, str) else None

    def inner(self) -> Iterator[Node]:
        """Itself and all that it holds."""
        yield self
        for node in (*(self.items or ()), *(node for _, node in self.pairs or ())):
            yield from node.inner()


def parse_document(content: bytes, *, is_json: bool) -> Node:
    """Parse a config.

    Args:
        content: the file.
        is_json: else it is YAML.

    Raises:
        DocumentError: not UTF-8, a byte order mark, a key twice, a YAML tag or alias, a second document, too large, too
            deep, or no such document at all.
    """
    if len(content) > MOST_BYTES:
        raise DocumentError(f"{len(content)} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"bytes that are no UTF-8 ({error.reason})") from error
    if text.startswith("\ufeff") or "\0" in text:
        raise DocumentError("a byte order mark or NUL")
    return _Json(text).parse() if is_json else _parse_yaml(text)


class _Json:
    """The standard library's scanners for texts and numbers, with lines kept."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.line, self.counted = text, 0, 1, 0
        self.number = scanner.NUMBER_RE

    def parse(self) -> Node:
        try:
            expected = json.loads(self.text)
            node = self._value(0)
        except DocumentError:
            raise
        except RecursionError as error:
            raise DocumentError(f"more than {MOST_LEVELS} levels") from error
        except JSONDecodeError as error:
            raise DocumentError(f"no JSON ({error.msg})", error.lineno) from error
        except (ValueError, IndexError) as error:
            raise DocumentError(f"no JSON ({error})", self.line) from error
        self._skip()
        # what MONAI reads is what is looked at
        if self.at != len(self.text) or repr(_plain(node)) != repr(expected):
            raise DocumentError("JSON that can be read in two ways")
        return node

    def _skip(self) -> str:
        while self.at < len(self.text) and self.text[self.at] in _WHITESPACE:
            self.at += 1
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.text[self.at : self.at + 1]

    def _string(self) -> str:
        value, self.at = scanstring(self.text, self.at + 1, True)
        return value

    def _value(self, level: int) -> Node:
        if level > MOST_LEVELS:
            raise DocumentError(f"more than {MOST_LEVELS} levels", self.line)
        first = self._skip()
        node = Node(self.line)
        if first == '"':
            node.value = self._string()
        elif first == "{":
            node.pairs = self._pairs(level)
        elif first == "[":
            node.items = self._items(level)
        else:
            for word, value in (("true", True), ("false", False), ("null", None)):
                if self.text.startswith(word, self.at):
                    node.value, self.at = value, self.at + len(word)
                    return node
            for word in ("NaN", "Infinity", "-Infinity"):
                if self.text.startswith(word, self.at):
                    node.value, self.at = float(word), self.at + len(word)
                    return node
            match = self.number.match(self.text, self.at)
            if match is None:
                raise ValueError("no value")
            node.value, self.at = json.loads(match.group()), match.end()
        return node

    def _items(self, level: int) -> list[Node]:
        items: list[Node] = []
        self.at += 1
        if self._skip() == "]":
            self.at += 1
            return items
        while True:
            items.append(self._value(level + 1))
            end = self._skip()
            self.at += 1
            if end == "]":
                return items

    def _pairs(self, level: int) -> list[tuple[str, Node]]:
        pairs: dict[str, Node] = {}
        self.at += 1
        if self._skip() == "}":
            self.at += 1
            return []
        while True:
            self._skip()
            key = self._string()
            if key in pairs:
                raise DocumentError(f"the key {key!r} twice", self.line)
            self._skip()
            self.at += 1
            pairs[key] = self._value(level + 1)
            end = self._skip()
            self.at += 1
            if end == "}":
                return list(pairs.items())


def _plain(node: Node) -> Any:
    if node.pairs is not None:
        return {key: _plain(value) for key, value in node.pairs}
    if node.items is not None:
        return [_plain(item) for item in node.items]
    return node.value


def _parse_yaml(text: str) -> Node:
    loader = yaml.SafeLoader(text)
    try:
        _check_events(text)
        root = loader.get_single_node()
        node = Node(1) if root is None else _from_yaml(root, loader)
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DocumentError(f"no YAML ({getattr(error, 'problem', error)})", mark.line + 1 if mark else 0) from error
    except RecursionError as error:
        raise DocumentError(f"more than {MOST_LEVELS} levels") from error
    except (ValueError, TypeError) as error:
        raise DocumentError(f"no YAML ({error})") from error
    finally:
        loader.dispose()
    return node


def _check_events(text: str) -> None:
    """Refuse tags, aliases and depth before anything is built of them."""
    level = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"an alias, *{event.anchor}", line)
        if getattr(event, "tag", None):
            raise DocumentError(f"a tag, {event.tag}", line)
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS or count > MOST_NODES:
            raise DocumentError(f"more than {MOST_LEVELS} levels or {MOST_NODES} values", line)


def _from_yaml(source: yaml.Node, loader: yaml.SafeLoader) -> Node:
    line = source.start_mark.line + 1
    node = Node(line)
    if isinstance(source, yaml.MappingNode):
        pairs: dict[Any, Node] = {}
        for key_node, value in source.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _YAML_TAGS:
                raise DocumentError("a key that is no text", key_node.start_mark.line + 1)
            key = loader.construct_object(key_node)
            if key in pairs:
                raise DocumentError(f"the key {key!r} twice", key_node.start_mark.line + 1)
            pairs[key] = _from_yaml(value, loader)
        node.pairs = [(str(key), value) for key, value in pairs.items()]
    elif isinstance(source, yaml.SequenceNode):
        node.items = [_from_yaml(item, loader) for item in source.value]
    elif source.tag in _YAML_TAGS:
        node.value = loader.construct_object(source)
    else:
        raise DocumentError(f"a value of type {source.tag}", line)
    return node
