"""The package as a wheel, for receivers who have nothing but pip."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import medseg_ext
from medseg_ext.errors import InputError, escaped
from medseg_ext.sharing.archive import write_zip

#: 1 January 1980, before which zip has no time.
_DATE = "315532800"


def build_wheel() -> tuple[str, bytes]:
    """Build the wheel of the running package from its source tree, with hatchling.

    Returns:
        Name and content; the same bytes from the same files.

    Raises:
        InputError: the package does not run from its source tree, or hatchling is missing.
    """
    root = Path(medseg_ext.__file__).parents[1]
    if not (root / "pyproject.toml").is_file():
        raise InputError(root, "no pyproject.toml", "the repository of medseg-ext, from which a wheel is built")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
            cwd=root,
            env={**os.environ, "SOURCE_DATE_EPOCH": _DATE},
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            allowed = 'hatchling: pip install "medseg-ext[sharing]"'
            raise InputError(root, f"a wheel that cannot be built ({escaped(last)})", allowed)
        with zipfile.ZipFile(wheels[0]) as source:
            files = {entry.filename: source.read(entry) for entry in source.infolist() if not entry.is_dir()}
        name = wheels[0].name
    stream = io.BytesIO()
    write_zip(stream, files)
    return name, stream.getvalue()
