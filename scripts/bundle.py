"""Pass a bundle on, and look at one that was passed on before a line of it runs.

    python scripts/bundle.py pack NAME --output DIR            DIR/NAME_vVERSION.zip
    python scripts/bundle.py sign X.zip --key key.pem          X.zip.sig beside it
    python scripts/bundle.py verify X.zip --key key.pub        tampered with, or signed by somebody else: refused
    python scripts/bundle.py audit X.zip                       anybody's zip or folder; nothing of it is executed
    python scripts/bundle.py install X.zip DEST --key key.pub  verified, audited, then unpacked whole or not at all
    python scripts/bundle.py check DEST                        MONAI's contract; this runs the bundle

Exit status: 0 done, or nothing found; 1 refused, or bad input, with one line on stderr; 2 a wrong command line. Every
verb takes --json and --help.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError, print_error
from medseg_ext.sharing.audit import Rules, audit_bundle, read_rules
from medseg_ext.sharing.check import check_bundle, record_phantoms
from medseg_ext.sharing.install import RefusedError, install_bundle
from medseg_ext.sharing.manifest import digest
from medseg_ext.sharing.pack import pack_bundle
from medseg_ext.sharing.signature import sign, verify
from medseg_ext.workflow.run import one_line_errors

ROOT = Path(__file__).resolve().parents[1]
PASSWORD = "MEDSEG_KEY_PASSWORD"

AUDIT = """What an audit looks at. Nothing of the bundle is executed, imported or unpickled.

Configs, every JSON and YAML file; they lie in configs, but for manifest.json and docs/phantom_metrics.json:
  _target_       a literal, exact public name of monai, torch, ignite or medseg_ext on the allow-list
                 (medseg_ext/sharing/audit/names.txt); torch.load, torch.hub, monai.bundle and whatever else executes,
                 fetches or unpickles is not on it. --allow FILE adds names, one a line.
  $ expressions  arithmetic, comparisons, literals, comprehensions, lambda, f-strings, calls; names of the allow-list,
                 in full or through imports; common functions of Python; @ids; a fixed list of attributes. No leading
                 underscores, no modules as values, no ** into calls. Imports stand in the lists imports, initialize,
                 run or finalize.
  % macros       ids of the config's own; none that read files.
  arguments      reader, writer, merger_cls, pretrained, allow_pickle, filename and the like hold harmless literals;
                 output_dir, save_dir, log_dir, filepath and the like a relative path that leads down, or what is put
                 together of such and of references to such: the first part cannot be empty in any of the files, no
                 later one has .. or hidden names. data_root_dir is empty; compile_kwargs and converter_kwargs have
                 keys of a list; copy, files, results and checkpoints are such paths in a bundle that has a
                 TrainingState or a TrackedRun.
  text           UTF-8 without a mark, no key twice, no YAML tags or aliases.
logging.conf     streams of the process; arguments (sys.stdout,) or (sys.stderr,); no option but the usual ones, as a
                 formatter's format, datefmt and style.
Markdown         no <script>, handlers of events or javascript:.
Weights          .pt: a zip of tensors whose pickle imports nothing else; .safetensors; .onnx of ONNX's own operators.
TorchScript      operators of torch, none that touches files; the configs that MONAI stores inside.
Code             .py, .whl, .so, scripts/ and the like, and a vendored medseg_ext: only byte for byte that of the
                 running medseg_ext, or listed in --trust FILE by its SHA-256 (as sha256sum prints it).
Paths            no links, hidden files, devices, names that collide on some system; in zips no traversal, bombs, gaps,
                 second entries of one name, encryption, or headers that disagree.
manifest.json    where there is one, every file has the sum it lists.

Not looked at: how much time and memory a bundle takes, whether its masks are right, and what it reads: an absolute path
of data is the lab's own affair, and what is read may be shown in its reports. Nor metadata that expressions make, by
which MONAI's SaveImaged names its files: start what you do not trust where little can be overwritten.
"""


def bundle_folder(name: str) -> Path:
    """A bundle by name, or by the path of its folder.

    Raises:
        InputError: there is none.
    """
    for folder in (ROOT / "bundles" / name, Path(name)):
        if (folder / "configs").is_dir():
            return folder
    known = ", ".join(sorted(path.name for path in (ROOT / "bundles").iterdir() if path.is_dir()))
    raise InputError(name, "no bundle", f"{known}, or a bundle's folder")


def show(args: argparse.Namespace, found: dict[str, Any], text: str) -> None:
    """Print a result for machines or for people."""
    print(json.dumps(found, indent=2, ensure_ascii=True) if args.json else text)


def rules_of(args: argparse.Namespace) -> Rules:
    """The lists of the command line."""
    return read_rules(args.allow or (), args.trust or ())


def run_pack(args: argparse.Namespace) -> int:
    """Write a zip."""
    path = pack_bundle(bundle_folder(args.name), args.output)
    content = path.read_bytes()
    found = {"zip": str(path), "bytes": len(content), "sha256": digest(content)}
    show(args, found, f"{path}: {len(content) / 1e6:.1f} MB, sha256 {found['sha256']}")
    return 0


def run_sign(args: argparse.Namespace) -> int:
    """Write a signature."""
    path = sign(args.zip, args.key, os.environ.get(PASSWORD))
    show(args, {"zip": str(args.zip), "signature": str(path)}, f"{path}: written")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Verify a signature."""
    verify(args.zip, args.key)
    show(args, {"zip": str(args.zip), "key": str(args.key), "verdict": "verified"}, f"{args.zip}: signed by {args.key}")
    return 0


def run_audit(args: argparse.Namespace) -> int:
    """Audit a bundle."""
    verdict = audit_bundle(args.path, rules_of(args))
    lines = [str(finding) for finding in verdict.findings]
    outcome = "passed" if verdict.passed else f"refused, {len(lines)} finding{'' if len(lines) == 1 else 's'}"
    show(args, verdict.as_json(), "\n".join([*lines, f"{args.path}: {outcome} ({verdict.files} files)"]))
    return 0 if verdict.passed else 1


def run_install(args: argparse.Namespace) -> int:
    """Install a zip."""
    if (args.key is None) == (not args.allow_unsigned):
        args.parser.error("either --key KEY or --allow-unsigned")
    path = install_bundle(args.zip, args.dest, args.key, rules_of(args))
    signed = None if args.key is None else str(args.key)
    how = "unsigned" if signed is None else f"signed by {signed}"
    show(args, {"bundle": str(path), "signed_by": signed}, f"{path}: installed, {how}")
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Check a bundle's contract."""
    if not args.path.is_dir():
        raise InputError(args.path, "no folder", "a bundle's folder; a zip is installed first")
    verdict = audit_bundle(args.path, rules_of(args))
    if not verdict.passed:  # a check runs the bundle
        raise RefusedError(args.path, verdict)
    if args.record:
        path = record_phantoms(args.path, args.phantoms.split(), args.record, args.tolerance)
        show(args, {"recorded": str(path)}, f"{path}: written")
        return 0
    results = check_bundle(args.path)
    passed = all(result.passed for result in results)
    lines = [f"{'passed' if result.passed else 'FAILED'}  {result.name}: {result.detail}" for result in results]
    found = {"bundle": str(args.path), "passed": passed, "checks": [result.as_json() for result in results]}
    show(args, found, "\n".join(lines))
    return 0 if passed else 1


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bundle.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(
        name: str, run: Callable[[argparse.Namespace], int], text: str, more: str = "", *, lists: bool = False
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name, help=text, description=more or text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        added.add_argument("--json", action="store_true", help="print the result as JSON")
        if lists:
            added.add_argument(
                "--allow", type=Path, action="append", metavar="FILE", help="further names that configs may use"
            )
            added.add_argument(
                "--trust", type=Path, action="append", metavar="FILE", help="SHA-256 sums of code that is known"
            )
        added.set_defaults(run=run, parser=added)
        return added

    pack = verb("pack", run_pack, "write NAME_vVERSION.zip: the same bytes from the same commit and versions")
    pack.add_argument("name", metavar="NAME", help="a folder of bundles/, or the path of one")
    pack.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the zip goes")

    signing = verb("sign", run_sign, f"sign a zip; the password of the key, if it has one, comes from ${PASSWORD}")
    signing.add_argument("zip", type=Path, metavar="X.zip")
    signing.add_argument("--key", type=Path, required=True, help="private key in PEM, on P-256, P-384 or P-521")

    verifying = verb("verify", run_verify, "verify the signature beside a zip")
    verifying.add_argument("zip", type=Path, metavar="X.zip")
    verifying.add_argument("--key", type=Path, required=True, help="public key in PEM of who should have signed")

    audit = verb("audit", run_audit, "look at a bundle, anybody's, without running it", AUDIT, lists=True)
    audit.add_argument("path", type=Path, metavar="PATH", help="a bundle's folder or zip")

    install = verb(
        "install",
        run_install,
        "verify, audit and unpack a zip, whole or not at all; DEST must be new or empty",
        lists=True,
    )
    install.add_argument("zip", type=Path, metavar="X.zip")
    install.add_argument("dest", type=Path, metavar="DEST", help="the bundle's folder")
    install.add_argument("--key", type=Path, help="public key in PEM of who should have signed")
    install.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="take a zip without a signature; manifest and audit hold all the same",
    )

    check = verb(
        "check", run_check, "check MONAI's contract of a bundle that passes the audit; this runs it", lists=True
    )
    check.add_argument("path", type=Path, metavar="PATH", help="a bundle's folder")
    check.add_argument(
        "--record", nargs="+", metavar="MEASURE", help="write docs/phantom_metrics.json from what the bundle gives now"
    )
    check.add_argument(
        "--phantoms", default="--count 3 --seed 1", help="with --record: arguments of python -m medseg_ext.phantoms"
    )
    check.add_argument("--tolerance", type=float, default=0.01, help="with --record: by how much numbers may differ")
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = parse(argv)
    try:
        status: int = args.run(args)
    except RefusedError as error:
        if not args.json:
            for finding in error.verdict.findings:
                print(finding)
        else:
            print(json.dumps(error.verdict.as_json(), indent=2))
        print_error(error)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
