"""Owns image layers: what lies in one, and its packed form, kept in a cache by the hash of what went in.
It must not know images, names or digests of anything above a layer."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

FORMAT = "1"  # changes whenever the bytes made from the same description change


@dataclass(frozen=True)
class File:
    """A file, or a folder with everything in it, copied from `source` to `path`."""

    source: Path
    path: str
    mode: int | None = None  # None: 0755 if the source is executable, else 0644


@dataclass(frozen=True)
class Text:
    path: str
    content: str
    mode: int = 0o644


@dataclass(frozen=True)
class Link:
    path: str
    target: str


@dataclass(frozen=True)
class Folder:
    path: str
    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True)
class Layer:
    """What changes together belongs into one layer: an unchanged layer is neither packed nor compressed again."""

    name: str
    entries: tuple
    compression: int = 6


@dataclass(frozen=True)
class Blob:
    """A packed layer in the cache."""

    name: str
    path: Path
    digest: str  # of the compressed bytes
    diff_id: str  # of the tar inside
    size: int
    raw_size: int
    reused: bool


def _expand(entry):
    """A folder is its files, in order."""
    if not isinstance(entry, File) or not entry.source.is_dir():
        return [entry]
    return [File(p, f"{entry.path.rstrip('/')}/{p.relative_to(entry.source)}", entry.mode)
            for p in sorted(entry.source.rglob("*")) if p.is_file()]


def _ordered(layer: Layer) -> list:
    entries = [e for entry in layer.entries for e in _expand(entry)]
    paths = {e.path for e in entries}
    parents = {str(parent) for e in entries for parent in Path(e.path).parents if str(parent) != "/"}
    entries += [Folder(path) for path in parents - paths]
    return sorted(entries, key=lambda e: e.path)


def _mode(entry: File) -> int:
    return entry.mode if entry.mode is not None else (0o755 if os.access(entry.source, os.X_OK) else 0o644)


def _file_digest(path: Path, memory: Path) -> str:
    """The content's hash, remembered by size and time of change: libtorch alone has half a gigabyte."""
    stat = path.stat()
    name = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}".encode()).hexdigest()
    known = memory / name
    if not known.exists():
        with open(path, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        memory.mkdir(parents=True, exist_ok=True)
        _write(known, digest.encode())
    return known.read_text()


def _layer_key(layer: Layer, cache: Path) -> str:
    key = hashlib.sha256(f"{FORMAT} {layer.compression}".encode())
    for entry in _ordered(layer):
        if isinstance(entry, File):
            description = f"file {entry.path} {_mode(entry):o} {_file_digest(entry.source, cache / 'hashes')}"
        else:
            description = repr(entry)
        key.update(f"\n{description}".encode())
    return key.hexdigest()


class _Hashing(io.RawIOBase):
    """Passes bytes on, and keeps their number and hash."""

    def __init__(self, below):
        self.below, self.sha, self.count = below, hashlib.sha256(), 0

    def writable(self):
        return True

    def write(self, data):
        self.sha.update(data)
        self.count += len(data)
        return self.below.write(data)

    def tell(self):
        return self.count


def pack(layer: Layer, cache: Path) -> Blob:
    """Compresses a layer into the cache, or finds it there."""
    base = cache / _layer_key(layer, cache)
    record = base.with_suffix(".json")
    reused = record.exists()
    if not reused:
        base.parent.mkdir(parents=True, exist_ok=True)
        unfinished = base.with_suffix(f".{os.getpid()}")
        with open(unfinished, "wb") as out:
            packed = _Hashing(out)
            with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=layer.compression, mtime=0) as zipped:
                raw = _Hashing(zipped)
                with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    for entry in _ordered(layer):
                        _add(archive, entry)
        unfinished.rename(base)
        facts = {"digest": packed.sha.hexdigest(), "diff_id": raw.sha.hexdigest(), "size": packed.count, "raw_size": raw.count}
        _write(record, json.dumps(facts).encode())
    return Blob(layer.name, base, reused=reused, **json.loads(record.read_text()))


def _add(archive: tarfile.TarFile, entry) -> None:
    info = tarfile.TarInfo(entry.path.lstrip("/"))  # mtime, uid and gid are 0
    match entry:
        case File():
            info.mode, info.size = _mode(entry), entry.source.stat().st_size
            with open(entry.source, "rb") as content:
                archive.addfile(info, content)
            return
        case Text():
            data = entry.content.encode()
            info.mode, info.size = entry.mode, len(data)
            archive.addfile(info, io.BytesIO(data))
            return
        case Link():
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
        case Folder():
            info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, entry.mode, entry.owner, entry.owner
    archive.addfile(info)


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    unfinished.rename(path)
