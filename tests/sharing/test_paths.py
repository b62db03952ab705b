"""Names of files on every system."""

from __future__ import annotations

import pytest

from medseg_ext.sharing.paths import collisions, fault_of


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("configs/train.json", None),
        ("docs/console.md", None),
        ("docs/é.md", None),
        ("../x", "a path that leads upwards"),
        ("/x", "an absolute path"),
        ("C:x", "an absolute path"),
        ("a//b", "a path with an empty part"),
        ("a/./b", "a path with an empty part"),
        ("a\\b", "a path with a character that Windows does not allow"),
        ("a/con", "the name of a device"),
        ("a/NUL.txt", "the name of a device"),
        ("a/com1.json", "the name of a device"),
        ("a/LPT³", "the name of a device"),
        ("a/b.", "a name that ends in a point or space"),
        (".git/x", "a hidden file"),
        ("a\nb", "a path with control characters"),
        ("x" * 201, "a path that is too long"),
    ],
)
def test_fault(path: str, fault: str | None) -> None:
    assert fault_of(path) == fault


def test_collisions() -> None:
    assert collisions(["a/b", "a/c"]) == []
    assert collisions(["a/b", "a/B"]) == [("a/b", "a/B")]
    assert collisions(["a/x", "A/y"]) == [("A", "a")]
    assert collisions(["a", "a/b"]) == [("a", "a/b")]
    assert collisions(["ﬁ", "fi"]) == [("ﬁ", "fi")]  # a ligature, which some systems write as two letters
