"""JSON and YAML, read as MONAI reads them, with lines."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_ext.sharing.audit.documents import DocumentError, Node, parse_document

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner), max_leaves=20
)


def plain(node: Node) -> object:
    if node.pairs is not None:
        return {key: plain(value) for key, value in node.pairs}
    return [plain(item) for item in node.items] if node.items is not None else node.value


@settings(deadline=None)
@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_json_is_what_json_loads(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    try:
        content = text.encode()
    except UnicodeEncodeError:
        return
    if "\0" in text:
        return
    assert plain(parse_document(content, is_json=True)) == json.loads(text)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), LEAVES.filter(lambda x: x == x))))
def test_yaml_is_what_yaml_loads(value: object) -> None:
    text = yaml.safe_dump(value)
    if "!!" in text or "\0" in text:
        return
    found = plain(parse_document(text.encode(), is_json=False))
    loaded = yaml.safe_load(text)
    assert found == [{str(key): inner for key, inner in item.items()} for item in loaded]


def test_lines() -> None:
    node = parse_document(b'{\n "a": [\n  1,\n  "x"\n ]\n}', is_json=True)
    assert [(inner.line, inner.value) for inner in node.inner()] == [(1, None), (2, None), (3, 1), (4, "x")]
    node = parse_document(b"a:\n- 1\n- x\n", is_json=False)
    assert [(inner.line, inner.value) for inner in node.inner()] == [(1, None), (2, None), (2, 1), (3, "x")]


@pytest.mark.parametrize(
    ("content", "is_json", "said"),
    [
        (b'{"a": 1, "a": 2}', True, "the key 'a' twice"),
        (b"a: 1\na: 2", False, "the key 'a' twice"),
        (b"a: !!str 1", False, "a tag, tag:yaml.org,2002:str"),
        (b"a: &x 1\nb: *x", False, "an alias, *x"),
        (b"[1] [2]", True, "no JSON (Extra data)"),
        (b"[" * 70 + b"]" * 70, True, "more than 60 levels"),
        (b"[" * 70 + b"]" * 70, False, "more than 60 levels or 500000 values"),
        (b"\xff", True, "bytes that are no UTF-8 (invalid start byte)"),
        (b'"\0"', True, "a byte order mark or NUL"),
    ],
)
def test_refused(content: bytes, is_json: bool, said: str) -> None:
    with pytest.raises(DocumentError) as error:
        parse_document(content, is_json=is_json)
    assert str(error.value) == said
