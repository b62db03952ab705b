"""Every attack is refused, for what it is, and none of it runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from attacks import ATTACKS, MARK, harmless, write_archive, write_folder

from medseg_ext.sharing.audit import audit_bundle

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_counts_them() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    counts = Counter(attack.rule for attack in ATTACKS.values())
    for kinds in (
        "target macro reference argument",
        "expression",
        "config logging",
        "weights torchscript",
        "code requirement fetch kind",
        "path name link archive size manifest",
    ):
        assert f" | {sum(counts.pop(kind) for kind in kinds.split())} |\n" in readme, kinds
    assert not counts


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_without_a_trick_it_passes(write, tmp_path: Path) -> None:
    verdict = audit_bundle(write(harmless(), tmp_path))
    assert (list(verdict.findings), verdict.files, verdict.bundle) == ([], len(harmless()), "victim")


@pytest.mark.parametrize("name", ATTACKS)
def test_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    attack = ATTACKS[name]
    try:
        path = attack.write(tmp_path)
    except (OSError, ValueError) as error:  # a name that this system does not take
        pytest.skip(f"cannot be written here: {error}")
    verdict = audit_bundle(path)
    assert not verdict.passed
    assert attack.rule in {finding.rule for finding in verdict.findings}, [str(finding) for finding in verdict.findings]
    assert all(str(finding).isprintable() for finding in verdict.findings)
    assert not list(tmp_path.rglob(MARK))


@pytest.mark.parametrize("bundle", sorted(path.name for path in (ROOT / "bundles").iterdir()))
def test_our_own_bundles_pass(bundle: str) -> None:
    assert [str(finding) for finding in audit_bundle(ROOT / "bundles" / bundle).findings] == []


def test_findings_name_file_and_line(tmp_path: Path) -> None:
    files = harmless()
    files["configs/train.yaml"] = b"# a comment\nnetwork:\n  _target_: os.abort\nrun:\n- $open('x')\n"
    files["configs/train.json"] = b'{\n "a": 1,\n "b": ["$exec(\'1\')"]\n}'
    found = audit_bundle(write_folder(files, tmp_path)).findings
    assert [(finding.file, finding.line, finding.rule) for finding in found] == [
        ("configs/train.json", 3, "expression"),
        ("configs/train.yaml", 3, "target"),
        ("configs/train.yaml", 5, "expression"),
    ]
    assert str(found[1]).startswith(
        "configs/train.yaml:3: [target] found _target_ os.abort, allowed an exact public name"
    )
