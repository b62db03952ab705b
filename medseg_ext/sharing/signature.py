"""Sign zips and verify them: OpenSSF model signing with elliptic keys, without any network.

The signature, a Sigstore bundle over the SHA-256 of the file, lies beside it as ``X.zip.sig``. Keys are PEM files on
the curves P-256, P-384 or P-521; openssl makes them::

    openssl ecparam -name prime256v1 -genkey -noout -out key.pem
    openssl ec -in key.pem -pubout -out key.pub

Source: https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import os
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from medseg_ext.errors import InputError
from medseg_ext.files import check_regular, write_beside
from medseg_ext.sharing.findings import quoted

SUFFIX = ".sig"
#: A signature names one file; what is larger is something else.
_MOST_BYTES = 2**20


def signature_of(path: Path) -> Path:
    """Where the signature of a file lies."""
    return path.with_name(path.name + SUFFIX)


def sign(path: Path, key: Path, password: str | None = None) -> Path:
    """Sign a file.

    Args:
        path: the zip.
        key: the private key, in PEM.
        password: that of the key, where it has one.

    Returns:
        The signature; an earlier one is replaced.

    Raises:
        InputError: there is no such file or key, or ``model-signing`` is not installed.
    """
    signing = _library("signing", path)
    _check_file(path, "the zip to sign")
    _check_file(key, "a private key in PEM")
    target = signature_of(path)
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
    except Exception as error:  # cryptography raises several classes for keys it cannot read
        raise InputError(
            key, f"no key to sign with ({quoted(error)})", "a private key in PEM, P-256, P-384 or P-521"
        ) from error
    try:
        with write_beside(target) as part:
            config.sign(path, part)
    except OSError as error:
        raise InputError(target, error.strerror or str(error), "a writable folder with room left") from error
    return target


def verify(path: Path, key: Path) -> None:
    """Verify the signature beside a file.

    Args:
        path: the zip; its signature is ``X.zip.sig``.
        key: the public key of who should have signed.

    Raises:
        InputError: there is no signature, it is of another key or file, or the file was changed.
    """
    verifying = _library("verifying", path)
    _check_file(path, "the zip to verify")
    _check_file(key, "a public key in PEM")
    signature = signature_of(path)
    _check_file(signature, "the signature of the zip")
    if signature.stat().st_size > _MOST_BYTES:
        raise InputError(signature, "a file that is too large", "a signature")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:
        raise InputError(key, f"no key to verify with ({quoted(error)})", "a public key in PEM") from error
    try:
        with redirect_stdout(StringIO()):  # the library prints hints about old formats
            config.set_hashing_config(_hashing(path)).verify(path, signature)
    except Exception as error:
        reason = quoted(error) or type(error).__name__
        raise InputError(
            path, f"a signature that does not hold ({reason})", f"what the owner of {key} signed"
        ) from error


def _hashing(path: Path) -> Any:
    """Our own choice of what is hashed, and not what the signature asks for: it may name files to leave out."""
    hashing = _library("hashing", path)
    return hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)


def _check_file(path: Path, allowed: str) -> None:
    check_regular(path, allowed)
    if not path.is_file():
        raise InputError(path, "no such file", allowed)


def _library(name: str, path: Path) -> Any:
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        allowed = 'the library that signs: pip install "medseg-ext[sharing]"'
        raise InputError(path, f"no model-signing that can be imported ({quoted(error)})", allowed) from error
    return {"hashing": hashing, "signing": signing, "verifying": verifying}[name]


def private_copy(path: Path, folder: Path) -> Path:
    """A copy that nobody else changes between looking at it and using it, with its signature if there is one."""
    holder = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    copy = holder / path.name
    for source, target in ((path, copy), (signature_of(path), signature_of(copy))):
        if source.is_file():
            with source.open("rb") as stream, target.open("wb") as part:
                while block := stream.read(2**20):
                    part.write(block)
                os.fsync(part.fileno())
    return copy
