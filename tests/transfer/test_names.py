"""Which tensor is which, under other names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_ext.errors import InputError
from medseg_ext.transfer import match_names

TARGET = ["backbone.down.0.weight", "backbone.down.1.weight", "backbone.out.bias"]


@pytest.mark.parametrize(
    "source",
    [
        TARGET,
        [f"module.{name}" for name in TARGET],
        [f"model.net.{name}" for name in TARGET],
        [name.removeprefix("backbone.") for name in TARGET],
        [name.replace("backbone", "encoder") for name in TARGET],
        [*(f"model.{name}" for name in TARGET), "loss.weight"],
    ],
)
def test_prefixes(source: list[str]) -> None:
    assert match_names(source, TARGET) == dict(zip(TARGET, source, strict=False))


def test_rules_in_their_order() -> None:
    source = ["stem.conv1.w", "stem.conv2.w"]
    rules = {r"^stem\.": "backbone.", r"conv(\d)\.w$": r"down.\1.weight"}
    assert match_names(source, ["backbone.down.1.weight"], rules) == {"backbone.down.1.weight": "stem.conv1.w"}


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ({"(": "x"}, r"rename: found '\(': 'x' \(missing \)"),
        ({"a": r"\9"}, r"rename: found 'a'"),
        ({"nothing": "x"}, "rename: found 'nothing': '.?', which changes no name"),
        ({r"\d": "0"}, "rename: found backbone.down.0.weight and backbone.down.1.weight becoming"),
    ],
)
def test_bad_rules(rules: dict[str, str], found: str) -> None:
    with pytest.raises(InputError, match=found):
        match_names(TARGET, TARGET, rules)


def test_nothing_in_common() -> None:
    assert match_names(["a.b", "c.d"], TARGET) == {}
    assert match_names([], TARGET) == {}


words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(".".join)


@given(st.sets(words, min_size=1), st.sampled_from(["", "module.", "x.y."]))
def test_a_prefix_never_loses_a_name(names: set[str], prefix: str) -> None:
    found = match_names([prefix + name for name in names], names)
    assert len(found) == len(names)
    assert len(set(found.values())) == len(found)
