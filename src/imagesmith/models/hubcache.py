"""The folders `huggingface_hub` keeps downloads in, read and written without importing it.

CACHE/models--owner--name/refs/main        the commit a branch or tag stood at when it was first fetched
CACHE/models--owner--name/blobs/HASH       contents, by sha256 (large files) or git's sha1 (small ones)
CACHE/models--owner--name/snapshots/COMMIT/config.json -> ../../blobs/HASH
CACHE/models--owner--name/imagesmith/COMMIT.json       what the hub stated about that commit: files, hashes, licence
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from imagesmith.core.errors import BadInput, BadWeights
from imagesmith.models.safe import inside, read_json, safe_name

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
REPOSITORY_ID = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository and the hash the hub states for it."""

    name: str
    size: int | None = None
    sha256: str | None = None
    """Of a large file."""
    git_sha1: str | None = None
    """Of a small file, which the hub keeps in git itself."""

    @property
    def hash(self) -> str | None:
        return self.sha256 or self.git_sha1


@dataclass(frozen=True)
class Repository:
    """A hub repository at one commit."""

    id: str
    commit: str
    files: tuple[HubFile, ...]
    license: str | None = None

    def file(self, name: str) -> HubFile | None:
        return next((file for file in self.files if file.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(file.name for file in self.files)


def split_id(text: str) -> tuple[str, str | None]:
    """Split "owner/name@revision" into repository and revision, or raise `BadInput`.

    >>> split_id("facebook/detr-resnet-50@main")
    ('facebook/detr-resnet-50', 'main')
    """
    repository, at, revision = text.partition("@")
    doubled = any(mark in repository for mark in ("..", "--"))
    if not REPOSITORY_ID.fullmatch(repository) or doubled:
        raise BadInput(f'"{text[:100]}" is no hub id; write owner/name, or owner/name@revision to pin a version.')
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise BadInput(f'"{revision[:100]}" is no revision; write a branch, a tag or a commit after the @.')
    return repository, revision or None


@dataclass(frozen=True)
class HubCache:
    """One repository's folder in the cache."""

    root: Path
    repository: str

    @property
    def folder(self) -> Path:
        return self.root / f"models--{self.repository.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def commit_of(self, revision: str) -> str | None:
        """Return the commit a revision stood at when it was fetched, or None if it never was."""
        if COMMIT.fullmatch(revision):
            return revision
        path = self.folder / "refs" / revision
        if not path.is_file():
            return None
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        return text if COMMIT.fullmatch(text) else None

    def pin(self, revision: str, commit: str) -> None:
        """Remember which commit a branch or tag stands at."""
        if revision != commit:
            _write(self.folder / "refs" / revision, commit)

    def record(self, repository: Repository) -> None:
        """Keep what the hub stated, for later verification without network."""
        text = json.dumps(asdict(repository), indent=1)
        _write(self.folder / "imagesmith" / f"{repository.commit}.json", text)

    def recorded(self, commit: str) -> Repository | None:
        """Return what the hub stated about a commit, or None where that was never written down."""
        path = self.folder / "imagesmith" / f"{commit}.json"
        if not path.is_file():
            return None
        values = read_json(path)
        try:
            files = tuple(HubFile(**{**file, "name": safe_name(file["name"])}) for file in values["files"])
            return Repository(self.repository, commit, files, values["license"])
        except (KeyError, TypeError):
            raise BadWeights(f"{path} is damaged; delete it and download the model again.") from None

    def seen(self, commit: str) -> Repository | None:
        """Describe a snapshot that another program fetched, by the names of the blobs it links to."""
        snapshot = self.snapshot(commit)
        if not snapshot.is_dir():
            return None
        files = []
        for path in sorted(snapshot.rglob("*")):
            if path.is_file():
                name = path.relative_to(snapshot).as_posix()
                blob = inside(snapshot, name).resolve()
                kept = blob.name if blob.parent == (self.folder / "blobs").resolve() else ""
                sha256 = kept if SHA256.fullmatch(kept) else None
                git_sha1 = kept if COMMIT.fullmatch(kept) else None
                files.append(HubFile(name, blob.stat().st_size, sha256, git_sha1))
        return Repository(self.repository, commit, tuple(files)) if files else None

    def has(self, commit: str, name: str) -> bool:
        return inside(self.snapshot(commit), name).is_file()

    def blob(self, hash: str) -> Path:
        """Return where the content with this hash lies; the hash has come from the hub and is checked."""
        if not (SHA256.fullmatch(hash) or COMMIT.fullmatch(hash)):
            raise BadWeights(f"The hub states the hash {hash[:80]!r}, which is neither sha256 nor sha1.")
        return self.folder / "blobs" / hash

    def link(self, commit: str, file: HubFile, blob: Path) -> Path:
        """Make a blob visible in a snapshot: a relative link, or the file itself where links are not possible."""
        path = inside(self.snapshot(commit), file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            aside.symlink_to(os.path.relpath(blob, path.parent))
        except OSError:
            shutil.copyfile(blob, aside)
        os.replace(aside, path)
        return path


def cache_root(cache: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the cache folder: given, else HF_HUB_CACHE, else HF_HOME/hub, else the one every hub program shares."""
    environ = os.environ if environ is None else environ
    if cache is not None:
        return cache.expanduser()
    if path := environ.get("HF_HUB_CACHE"):
        return Path(os.path.expandvars(path)).expanduser()
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def _write(path: Path, text: str) -> None:
    """Write aside and rename, so that no reader ever meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
