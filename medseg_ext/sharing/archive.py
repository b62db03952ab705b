"""Archives: read ones that may be hostile, write ones that are the same bytes every time."""

from __future__ import annotations

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from medseg_ext.errors import InputError
from medseg_ext.sharing.findings import Finding, quoted
from medseg_ext.sharing.paths import collisions, fault_of

#: A bundle for the model zoo may hold 25 MB a file; larger ones exist.
MOST_FILE_BYTES = 4 * 2**30
MOST_BYTES = 8 * 2**30
MOST_FILES = 5_000
#: Text and weights do not shrink further.
MOST_RATIO = 200

_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
_DATA_DESCRIPTOR = 0x8
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)
_PLAIN_FILE = "a file or folder"
#: Large sizes, times of Windows and Unix, owners, and what torch pads with.
_EXTRA_FIELDS = {0x0001, 0x000A, 0x5455, 0x5855, 0x7855, 0x7875, 0x4246}


@dataclass
class BundleFiles:
    """The files of a bundle, in a folder or in an archive.

    Args:
        name: of the bundle, its root folder.
        sizes: bytes by path below the root.
        findings: what is wrong with the folder or archive as such; nothing in it may be trusted then.
    """

    name: str
    sizes: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    _read: Callable[[str], bytes] = field(default=lambda path: b"", repr=False)

    def read(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            ValueError: it is damaged, gone, or of another size than it was said to have.
        """
        try:
            content = self._read(path)
        except _DAMAGE as error:
            raise ValueError(f"what cannot be read ({quoted(error)})") from error
        if len(content) != self.sizes[path]:
            raise ValueError(f"{len(content)} bytes where {self.sizes[path]} were announced")
        return content

    def add(self, path: str, rule: str, found: str, allowed: str) -> None:
        """Note what is wrong with the container."""
        self.findings.append(Finding(path, 0, rule, found, allowed))


@contextmanager
def open_bundle(path: str | os.PathLike[str]) -> Iterator[BundleFiles]:
    """Open a bundle's folder or archive. Nothing is written or unpacked.

    Args:
        path: a folder, or a zip whose one root folder is the bundle.

    Raises:
        InputError: there is nothing at the path, or no folder and no zip.
    """
    path = Path(path)
    if path.is_symlink():
        raise InputError(path, "a link", "a bundle's folder or its zip")
    if path.is_dir():
        yield _open_folder(path)
        return
    if not path.is_file():
        raise InputError(path, "nothing" if not path.exists() else "no file", "a bundle's folder or its zip")
    with path.open("rb") as stream:
        yield from _open_zip(path, stream)


def _open_folder(root: Path) -> BundleFiles:
    bundle = BundleFiles(root.resolve().name, _read=lambda path: (root / path).read_bytes())
    for folder, folders, files in os.walk(root, followlinks=False):
        for entry in sorted([*folders, *files]):
            full = Path(folder) / entry
            path = full.relative_to(root).as_posix()
            info = full.lstat()
            fault = fault_of(path)
            if fault:
                bundle.add(path, "path", fault, "plain names below the bundle's folder")
            if stat.S_ISLNK(info.st_mode):
                bundle.add(path, "link", "a link", _PLAIN_FILE)
            elif stat.S_ISREG(info.st_mode):
                bundle.sizes[path] = info.st_size
            elif not stat.S_ISDIR(info.st_mode):
                bundle.add(path, "link", "a pipe, socket or device", _PLAIN_FILE)
    _check_whole(bundle)
    return bundle


def _open_zip(path: Path, stream: io.BufferedReader) -> Iterator[BundleFiles]:
    try:
        archive = zipfile.ZipFile(stream)
    except _DAMAGE as error:
        raise InputError(path, f"no readable zip ({quoted(error)})", "a bundle's folder or its zip") from error
    with archive:
        yield _look_at_zip(path, archive)


def _look_at_zip(path: Path, archive: zipfile.ZipFile) -> BundleFiles:
    entries = archive.infolist()
    bundle = BundleFiles(path.stem)
    if len(entries) > MOST_FILES:
        bundle.add("", "size", f"{len(entries)} entries", f"{MOST_FILES} at the most")
        return bundle
    check_zip_structure(archive, bundle)
    roots, infos = set(), {}
    for entry in entries:
        name = entry.filename[:-1] if entry.is_dir() else entry.filename
        fault = fault_of(name)
        if fault or entry.orig_filename != entry.filename:
            bundle.add(
                entry.orig_filename, "path", fault or "a name that is cut", "plain names below the bundle's folder"
            )
            continue
        root, _, inner = name.partition("/")
        roots.add(root)
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            bundle.add(inner or name, "link", "a link or device", _PLAIN_FILE)
        if entry.is_dir():
            continue
        if not inner:
            bundle.add(name, "path", "a file beside the bundle's folder", "one folder, named as the bundle, with all")
            continue
        if inner in infos:
            bundle.add(inner, "name", "the name twice", "each name once")
        infos[inner] = entry
        bundle.sizes[inner] = entry.file_size
    if len(roots) != 1:
        bundle.add("", "path", f"{len(roots)} folders at the top", "one folder, named as the bundle")
    else:
        (bundle.name,) = roots
    bundle._read = lambda inner: archive.read(infos[inner])
    _check_whole(bundle)
    return bundle


def check_zip_structure(archive: zipfile.ZipFile, bundle: BundleFiles) -> None:
    """Refuse zips that two programs would read differently, or that unpack to far more than they are.

    Entries follow one another without gaps or overlaps from the first byte to the directory, are not encrypted, stored
    or deflated, and their headers agree with the directory.
    """
    stream = archive.fp
    assert stream is not None
    if archive.comment:
        bundle.add("", "archive", "a comment behind the archive", "nothing beside the files")
    position = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        name = entry.filename
        if entry.flag_bits & _ENCRYPTED:
            bundle.add(name, "archive", "an encrypted file", "plain ones")
        if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            bundle.add(name, "archive", f"compression {entry.compress_type}", "stored or deflated")
        if entry.file_size > MOST_RATIO * max(entry.compress_size, 1024):
            bundle.add(name, "size", f"{entry.file_size} bytes packed into {entry.compress_size}", f"{MOST_RATIO} to 1")
        stream.seek(entry.header_offset)
        header = stream.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            bundle.add(name, "archive", "a directory that points to no file", "headers that agree")
            return
        name_size, extra_size = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        local_name, flags = stream.read(name_size), int.from_bytes(header[6:8], "little")
        if (_extra_fields(stream.read(extra_size)) | _extra_fields(entry.extra)) - _EXTRA_FIELDS:
            bundle.add(name, "archive", "further fields, which may name the file otherwise", "sizes, times and owners")
        method = int.from_bytes(header[8:10], "little")
        encoding = "utf-8" if flags & 0x800 else "cp437"
        if local_name.decode(encoding, "replace") != entry.orig_filename or method != entry.compress_type:
            bundle.add(name, "archive", f"a file whose own header says {quoted(local_name)}", "headers that agree")
        if not flags & _DATA_DESCRIPTOR:
            sizes = [int.from_bytes(header[at : at + 4], "little") for at in (18, 22)]
            if sizes[0] != 0xFFFFFFFF and sizes != [entry.compress_size, entry.file_size]:
                bundle.add(name, "archive", "a file whose own header has other sizes", "headers that agree")
        if entry.header_offset != position:
            bundle.add(name, "archive", "bytes between or before the files, or files that overlap", "files one by one")
            return
        position = entry.header_offset + _LOCAL_HEADER + name_size + extra_size + entry.compress_size
        if flags & _DATA_DESCRIPTOR:
            stream.seek(position)
            descriptor = stream.read(24)
            wide = entry.file_size >= 2**32 - 1 or _is_wide(descriptor, entry)
            position += (4 if descriptor[:4] == b"PK\x07\x08" else 0) + (20 if wide else 12)
    if position != archive.start_dir:
        bundle.add("", "archive", "bytes between the files and their directory", "nothing beside the files")


def _extra_fields(extra: bytes) -> set[int]:
    """The numbers of the extra fields of an entry; -1 for what is none."""
    fields = set()
    while len(extra) >= 4:
        size = int.from_bytes(extra[2:4], "little")
        fields.add(int.from_bytes(extra[:2], "little") if 4 + size <= len(extra) else -1)
        extra = extra[4 + size :]
    return fields | ({-1} if extra.strip(b"\0") else set())


def _is_wide(descriptor: bytes, entry: zipfile.ZipInfo) -> bool:
    """Whether a data descriptor has its sizes in eight bytes, as those of torch have."""
    start = 8 if descriptor[:4] == b"PK\x07\x08" else 4
    wide = [int.from_bytes(descriptor[at : at + 8], "little") for at in (start, start + 8)]
    return wide == [entry.compress_size, entry.file_size]


def _check_whole(bundle: BundleFiles) -> None:
    if len(bundle.sizes) > MOST_FILES:
        bundle.add("", "size", f"{len(bundle.sizes)} files", f"{MOST_FILES} at the most")
    for path, size in bundle.sizes.items():
        if size > MOST_FILE_BYTES:
            bundle.add(path, "size", f"{size} bytes", f"{MOST_FILE_BYTES} at the most")
    total = sum(bundle.sizes.values())
    if total > MOST_BYTES:
        bundle.add("", "size", f"{total} bytes", f"{MOST_BYTES} at the most")
    for first, second in collisions(bundle.sizes):
        found = f"two names that are one on some systems, {quoted(first)} and {quoted(second)}"
        bundle.add(second, "name", found, "names that differ")
    if fault_of(bundle.name):
        bundle.add("", "path", f"the name {quoted(bundle.name)}", "a plain name")


#: Before this date zip has no time.
_TIME = (1980, 1, 1, 0, 0, 0)


def write_zip(stream: io.BufferedIOBase, files: Mapping[str, bytes], *, alignment: int = 1) -> None:
    """Write an archive that depends on names and contents alone.

    Entries are sorted, dated 1980, readable by all, and stored: what deflate makes depends on the version of zlib.

    Args:
        stream: open for writing.
        files: contents by path.
        alignment: contents begin at multiples of this many bytes, as those of torch's archives do.
    """
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            _write_entry(archive, path, files[path], alignment)


def write_zip_in_order(stream: io.BufferedIOBase, files: Iterable[tuple[str, bytes]], *, alignment: int = 1) -> None:
    """:func:`write_zip` in the order given, for readers that go by it."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path, content in files:
            _write_entry(archive, path, content, alignment)


def _write_entry(archive: zipfile.ZipFile, path: str, content: bytes, alignment: int) -> None:
    entry = zipfile.ZipInfo(path, _TIME)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    if alignment > 1:
        assert archive.fp is not None
        start = archive.fp.tell() + _LOCAL_HEADER + len(path.encode()) + 4
        padding = -start % alignment
        # a field of its own, "FB", is what torch pads with
        entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(entry, content)
