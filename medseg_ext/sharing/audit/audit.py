"""Audit a bundle: look at every file of it, run none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medseg_ext.sharing.archive import BundleFiles, open_bundle
from medseg_ext.sharing.audit.code import PACKAGE, SUFFIXES, check_code, check_requirements, read_sums
from medseg_ext.sharing.audit.configs import check_configs
from medseg_ext.sharing.audit.documents import DocumentError, Node, parse_document
from medseg_ext.sharing.audit.logging_conf import check_logging
from medseg_ext.sharing.audit.names import AllowedNames, read_names
from medseg_ext.sharing.audit.torchscript import check_torchscript
from medseg_ext.sharing.audit.weights import check_onnx, check_safetensors, check_torch_weights
from medseg_ext.sharing.findings import Finding, Verdict, quoted
from medseg_ext.sharing.manifest import MANIFEST, manifest_faults

_KNOWN = Path(__file__).with_name("known.txt")
#: JSON and YAML outside configs; what programs look for by its name (a conda environment, Jupyter's settings) may be
#: instructions to them.
_DOCUMENTS = (MANIFEST, "docs/phantom_metrics.json")
_OF_TOOLS = re.compile(r"jupyter|ipython|kernel\.json|environment|conda|package|docker|compose", re.IGNORECASE)
#: What a page of HTML would run, which browsers and notebooks show Markdown as.
_SCRIPT = re.compile(rb"<\s*(script|iframe|object|embed)\b|<[a-z][^<>]*\son[a-z]+\s*=|javascript\s*:", re.IGNORECASE)
_MARKUP = {".md", ".rst"}
_TEXTS = {".md", ".txt", ".rst", ".csv", ".tsv", ".bib", ".cff"}
_NAMED_TEXTS = {"AUTHORS", "CHANGELOG", "CITATION", "COPYING", "LICENCE", "LICENSE", "NOTICE", "README"}
_PICTURES = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".gif": (b"GIF8",),
}
_WEIGHTS: dict[str, Callable[[bytes], list[tuple[str, str]]]] = {
    ".pt": check_torch_weights,
    ".safetensors": check_safetensors,
    ".onnx": check_onnx,
}
_KINDS = "JSON, YAML, logging.conf, .pt, .ts, .safetensors, .onnx, .md, .txt, .csv, .png, .jpg, .gif and licences"


@dataclass(frozen=True)
class Rules:
    """What a user adds to what is allowed.

    Args:
        names: the allow-list of names.
        trusted: SHA-256 sums of code that is known.
    """

    names: AllowedNames
    trusted: frozenset[str] = frozenset()


def read_rules(allow: Iterable[Path] = (), trust: Iterable[Path] = ()) -> Rules:
    """The rules with a user's additions.

    Args:
        allow: files of further names, see :func:`~medseg_ext.sharing.audit.names.read_names`.
        trust: files of sums, see :func:`~medseg_ext.sharing.audit.code.read_sums`; those of ``known.txt``, the
            notebooks of this project's own bundles, are trusted anyway.

    Raises:
        InputError: one of the files cannot be read.
    """
    return Rules(read_names(allow), read_sums([_KNOWN, *trust]))


def audit_bundle(path: str | os.PathLike[str], rules: Rules | None = None) -> Verdict:
    """Look at every file of a bundle without running, importing or unpacking any.

    Args:
        path: a bundle's folder, or a zip of it.
        rules: what is allowed; the package's own lists when None.

    Returns:
        The verdict, with a finding for everything that is not allowed.

    Raises:
        InputError: there is no bundle at the path.
    """
    with open_bundle(path) as bundle:
        audit = _Audit(bundle, rules or read_rules())
        # what an unsound archive holds depends on who reads it
        if not bundle.findings:
            audit.check_files()
        return Verdict(bundle.name, len(bundle.sizes), sorted({*bundle.findings, *audit.findings}))


@dataclass
class _Audit:
    bundle: BundleFiles
    rules: Rules
    findings: list[Finding] = field(default_factory=list)
    documents: dict[str, Node] = field(default_factory=dict)
    code: dict[str, bytes] = field(default_factory=dict)

    def add(self, file: str, rule: str, found: str, allowed: str, line: int = 0) -> None:
        self.findings.append(Finding(file, line, rule, found, allowed))

    def check_files(self) -> None:
        for path in sorted(self.bundle.sizes):
            try:
                self.check_file(path, self.bundle.read(path))
            except ValueError as error:
                self.add(path, "archive", str(error), "a file that can be read")
        self.findings += check_configs(self.documents, self.rules.names)
        for path, found, allowed in check_code(self.code, self.rules.trusted):
            self.add(path, "code", found, allowed)
        if MANIFEST in self.bundle.sizes:
            for path, found, allowed in manifest_faults(self.bundle):
                self.add(path, "manifest", found, allowed)
        if not any(path.startswith("configs/") for path in self.bundle.sizes):
            self.add("", "bundle", "no folder configs", "a MONAI bundle")

    def check_file(self, path: str, content: bytes) -> None:
        name = PurePosixPath(path).name
        suffix = PurePosixPath(path).suffix.lower()
        if path.startswith(f"{PACKAGE}/") or suffix in SUFFIXES or content[:2] == b"#!":
            self.code[path] = content
        elif suffix in {".json", ".yaml", ".yml"}:
            if (not path.startswith("configs/") and path not in _DOCUMENTS) or _OF_TOOLS.match(name):
                found = "JSON or YAML that other programs may read"
                self.add(path, "kind", found, f"configs/* and {', '.join(_DOCUMENTS)}")
            self.check_document(path, content, is_json=suffix == ".json")
        elif suffix in {".conf", ".ini", ".cfg"}:
            self.findings += check_logging(path, content)
        elif suffix in _WEIGHTS:
            for found, allowed in _WEIGHTS[suffix](content):
                self.add(path, "weights", found, allowed)
        elif suffix == ".ts":
            self.check_torchscript(path, content)
        elif suffix in _PICTURES:
            if not content.startswith(_PICTURES[suffix]):
                self.add(path, "kind", f"no picture of the kind {suffix}", "what the name says")
        elif suffix in _TEXTS or name.upper() in _NAMED_TEXTS:
            self.check_text(path, content)
        else:
            self.add(path, "kind", f"a file of the kind {quoted(suffix or name)}", _KINDS)

    def check_document(self, path: str, content: bytes, *, is_json: bool) -> None:
        try:
            self.documents[path] = parse_document(content, is_json=is_json)
        except DocumentError as error:
            self.add(path, "config", quoted(error), "plain JSON or YAML in UTF-8", error.line)
            return
        if re.fullmatch(r"large[_-]files?\.ya?ml|large[_-]files?\.json", PurePosixPath(path).name):
            self.add(
                path, "fetch", "files to be fetched from elsewhere", "all files in the bundle: fetch them, then audit"
            )

    def check_torchscript(self, path: str, content: bytes) -> None:
        faults, extra = check_torchscript(content)
        for found, allowed in faults:
            self.add(path, "torchscript", found, allowed)
        for name, inner in extra.items():
            self.check_document(f"{path}!extra/{name}", inner, is_json=True)

    def check_text(self, path: str, content: bytes) -> None:
        if b"\0" in content:
            self.add(path, "kind", "a text with NUL", "text")
        name = PurePosixPath(path).name.lower()
        is_markup = PurePosixPath(name).suffix in _MARKUP or name == "readme"
        script = _SCRIPT.search(content) if is_markup else None
        if script:
            line = content.count(b"\n", 0, script.start()) + 1
            self.add(path, "kind", f"a script, {quoted(script.group().decode('utf-8', 'replace'))}", "text", line)
        if name.startswith(("requirements", "constraints")):
            for line, found in check_requirements(content.decode("utf-8", "replace")):
                self.add(path, "requirement", found, "names of packages with versions", line)
