"""Code in a bundle: trusted by its SHA-256 alone."""

from __future__ import annotations

import email
import importlib.metadata
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

import medseg_ext
from medseg_ext.errors import InputError
from medseg_ext.sharing.archive import BundleFiles, check_zip_structure
from medseg_ext.sharing.findings import quoted
from medseg_ext.sharing.manifest import digest
from medseg_ext.sharing.paths import collisions, fault_of
from medseg_ext.sharing.words import words

PACKAGE = "medseg_ext"
DISTRIBUTION = "medseg-ext"

#: What an interpreter, an installer, a shell or a browser would run.
SUFFIXES = words(
    """
    .bat .cmd .com .dll .dylib .egg .exe .htm .html .ipynb .jar .js .pl .ps1 .pth .py .pyc .pyd .pyi .pyo .pyw .pyx
    .rb .sh .so .svg .tar .toml .whl
    """
)

_ALLOWED = "code of a known release (--trust FILE names further ones by their SHA-256)"
_SUM = re.compile(r"([0-9a-fA-F]{64})(\s+\*?.*)?")


def read_sums(paths: Iterable[Path]) -> frozenset[str]:
    """SHA-256 sums of trusted files, as ``sha256sum`` prints them, one a line; ``#`` begins a comment.

    Raises:
        InputError: for a file that is missing or a line that is no sum.
    """
    sums = set()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(path, f"an unreadable file ({error})", "SHA-256 sums, one a line") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _SUM.fullmatch(line.strip())
            if not match:
                raise InputError(
                    path, f"line {number} without a sum", "SHA-256 sums, one a line, as sha256sum prints them"
                )
            sums.add(match.group(1).lower())
    return frozenset(sums)


@cache
def own_files() -> Mapping[str, str]:
    """The release that is at work: SHA-256 of every file of the running package, by path from ``medseg_ext/``."""
    root = Path(medseg_ext.__file__).parent
    return {
        f"{PACKAGE}/{path.relative_to(root).as_posix()}": digest(path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def check_code(contents: Mapping[str, bytes], trusted: frozenset[str]) -> list[tuple[str, str, str]]:
    """Check the code of a bundle.

    Args:
        contents: every file of a kind that is run, and all of a vendored ``medseg_ext``, by path in the bundle.
        trusted: sums of files that are known.

    Returns:
        Path, what was found, and what is allowed, for each file that is neither known, nor a wheel of the running
        package, nor part of a whole copy of it.
    """
    found = []
    vendored = {path for path in contents if path.startswith(f"{PACKAGE}/")}
    whole = {path: digest(contents[path]) for path in vendored} == own_files()
    for path, content in contents.items():
        if digest(content) in trusted or (whole and path in vendored):
            continue
        if path.endswith(".whl"):
            faults = wheel_faults(content, Path(path).name)
            found += [(path, f"a wheel with {fault}", _ALLOWED) for fault in faults]
        elif path in vendored:
            known = own_files().get(path) == digest(content)
            found.append((path, "a part of medseg_ext" if known else "code that is not that of medseg_ext", _ALLOWED))
        else:
            found.append((path, "code", _ALLOWED))
    return found


def wheel_faults(content: bytes, name: str) -> list[str]:
    """Why a wheel is not one of the running package, byte by byte and with the same requirements; none if it is."""
    if not re.fullmatch(r"medseg_ext-[\w.]+-py3-none-any\.whl", name):
        return [f"the name {quoted(name)}"]
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        outer = BundleFiles(name)
        check_zip_structure(archive, outer)
        if outer.findings:
            return [finding.found for finding in outer.findings]
        names = [entry.filename for entry in archive.infolist()]
        odd = [path for path in names if fault_of(path)]
        if odd or len(set(names)) != len(names) or collisions(names):
            return ["odd names of files"]
        files = {path: archive.read(path) for path in names}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return [f"what cannot be read ({quoted(error)})"]
    code = {path: digest(inner) for path, inner in files.items() if path.startswith(f"{PACKAGE}/")}
    faults = []
    if code != own_files():
        own = own_files()
        differing = sorted(path for path in code.keys() | own.keys() if code.get(path) != own.get(path))
        faults.append(f"{len(differing)} files that differ from the running release, as {quoted(differing[0])}")
    for path in sorted(files.keys() - code.keys()):
        if not re.fullmatch(r"medseg_ext-[\w.]+\.dist-info/(METADATA|WHEEL|RECORD|licenses/LICENSE)", path):
            faults.append(f"the file {quoted(path)}")
        elif path.endswith("/METADATA") and not _same_requirements(files[path]):
            faults.append("requirements other than those of the running release")
    return faults


def _same_requirements(metadata: bytes) -> bool:
    message = email.message_from_bytes(metadata)
    try:
        own = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return False
    return _requirements(message.get_all("Requires-Dist") or []) == _requirements(own)


def _requirements(lines: Iterable[str]) -> set[str]:
    return {str(Requirement(line)) for line in lines}


def check_requirements(text: str) -> list[tuple[int, str]]:
    """Lines of a requirements file that are more than names with versions: addresses, options, other files."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        plain = line.split("#")[0].strip()
        if not plain:
            continue
        try:
            direct = Requirement(plain).url
        except InvalidRequirement:
            direct = plain
        if direct:
            found.append((number, quoted(plain)))
    return found
