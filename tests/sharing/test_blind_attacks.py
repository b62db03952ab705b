"""Attacks on a bundle of this project, by somebody who had not seen the audit: all of them are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import blind_attacks
import pytest
import second_blind_attacks

from medseg_ext.sharing.audit import audit_bundle

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / "lgg_2d_segmentation"
PARTS = ("LICENSE", "configs", "docs/README.md", "models/model.pt")
ATTACKS = {
    f"{module.__name__}.{name}": attack
    for module in (blind_attacks, second_blind_attacks)
    for name, attack in vars(module).items()
    if name.startswith("attack_") and callable(attack)
}
HARMLESS = {
    name: change
    for name, change in vars(second_blind_attacks).items()
    if name.startswith("harmless_") and callable(change)
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / BUNDLE.name
    for part in PARTS:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        if (BUNDLE / part).is_dir():
            shutil.copytree(BUNDLE / part, folder / part)
        else:
            shutil.copy(BUNDLE / part, folder / part)
    return folder


def test_without_a_trick_it_passes(bundle: Path) -> None:
    assert [str(finding) for finding in audit_bundle(bundle).findings] == []


@pytest.mark.parametrize("name", ATTACKS)
def test_refused(name: str, bundle: Path) -> None:
    assert not audit_bundle(ATTACKS[name](bundle)).passed


@pytest.mark.parametrize("name", HARMLESS)
def test_what_others_change(name: str, bundle: Path) -> None:
    assert [str(finding) for finding in audit_bundle(HARMLESS[name](bundle)).findings] == []


def test_the_readme_counts_them() -> None:
    assert f" | {len(ATTACKS)} |\n" in (ROOT / "README.md").read_text(encoding="utf-8")
