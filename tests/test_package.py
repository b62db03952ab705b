"""The repository as a whole: what lies in it, what it depends on, what is documented."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distributions as installed
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "medseg_ext").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
TOP_LEVEL = {"bundles", "medseg_ext", "tests", "scripts", "pyproject.toml", "README.md", "LICENSE"}
MIB = 2**20
VOLUME = re.compile(r"\.(tiff?|nii|nii\.gz|npz|npy|dcm|mha|mhd|nrrd|h5|hdf5)$", re.IGNORECASE)
PICTURE = re.compile(r"\.(png|jpe?g|gif|bmp|webp|svg)$", re.IGNORECASE)
PATIENT = re.compile(r"(TCGA[_-]|BraTS(?!_3d_segmentation)[-_.\d]|kaggle_3m)", re.IGNORECASE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def looks_like_patient_data(path: str) -> bool:
    """Whether a file holds a volume, or a picture under a public data set's patient name."""
    return bool(VOLUME.search(path) or (PICTURE.search(path) and PATIENT.search(path)))


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Paths that are tracked, or would be by ``git add``."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"git ls-files: {listed.stderr.strip()}")
    return [path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()]


def test_top_level(files: list[str]) -> None:
    assert {path.split("/")[0] for path in files if not path.startswith(".")} == TOP_LEVEL


def test_no_file_is_refused_by_the_model_zoo_for_its_size(files: list[str]) -> None:
    assert [path for path in files if (ROOT / path).stat().st_size > 25 * MIB] == []


def test_no_patient_in_the_tree(files: list[str]) -> None:
    assert [path for path in files if looks_like_patient_data(path)] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tests/data/TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif", True),
        ("docs/tcga_cs_4941_19960909_7.PNG", True),
        ("bundles/x/docs/BraTS-GLI-00000-000/overlay.png", True),
        ("case_0000.nii.gz", True),
        ("cache.npz", True),
        ("bundles/lgg/docs/phantom.png", False),
        ("bundles/lgg/configs/split_TCGA_lgg.json", False),
        ("medseg_ext/layouts/nifti.py", False),
    ],
)
def test_what_looks_like_patient_data(path: str, expected: bool) -> None:
    assert looks_like_patient_data(path) is expected


def imported_packages(tree: ast.AST, *, everywhere: bool) -> Iterator[str]:
    """Packages imported from elsewhere: when the module is imported, or everywhere in it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported_packages(node, everywhere=everywhere)


def declared_packages(*, extras: bool) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"].values() if extras else ())]
    return {canonicalize_name(Requirement(line).name) for group in groups for line in group}


@cache
def distributions() -> Mapping[str, list[str]]:
    """Which installed distributions provide a package; reading them all takes seconds."""
    found: dict[str, list[str]] = defaultdict(list)
    for distribution in installed():
        # packages_distributions() of Python 3.10 knows only those that have a top_level.txt
        for top in {file.parts[0].removesuffix(".py") for file in distribution.files or () if file.suffix == ".py"}:
            found[top].append(distribution.metadata["Name"])
    return found


def undeclared_imports(path: Path, declared: set[str], *, everywhere: bool) -> list[str]:
    """Imports of third parties whose distribution is not declared."""
    ours = {"medseg_ext", "scripts", *(script.stem for script in SCRIPTS)}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    packages = sorted(set(imported_packages(tree, everywhere=everywhere)) - sys.stdlib_module_names - ours)
    return [
        package
        for package in packages
        # a package split over several distributions, as ITK, is declared under its own name
        if declared.isdisjoint(canonicalize_name(name) for name in (package, *distributions().get(package, ())))
    ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_are_declared(path: Path) -> None:
    assert undeclared_imports(path, declared_packages(extras=False), everywhere=False) == []
    # what only a function imports may come with an extra
    assert undeclared_imports(path, declared_packages(extras=True), everywhere=True) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_imports_of_scripts_are_declared(path: Path) -> None:
    assert undeclared_imports(path, declared_packages(extras=True), everywhere=True) == []


def test_undeclared_import_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    lines = ["import os, pytest", "from PIL import Image", "try:", "    import _pytest.main", "finally:", "    pass"]
    module.write_text("\n".join(lines))
    assert undeclared_imports(module, {"pillow"}, everywhere=False) == ["_pytest", "pytest"]
    module.write_text("def f():\n    import pytest\n")
    assert undeclared_imports(module, set(), everywhere=False) == []
    assert undeclared_imports(module, set(), everywhere=True) == ["pytest"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []
