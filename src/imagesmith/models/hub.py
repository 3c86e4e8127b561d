"""The model hub: describe a repository at a pinned commit, fetch its files with resume and hash checks, search.

Network calls go through `huggingface_hub`, imported only when one is made: a model that is in the cache is found
without it. The cache is the one `huggingface_hub` keeps, so that models other programs fetched are found too.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from imagesmith.core.errors import BadWeights, HubError, did_you_mean
from imagesmith.models.hubcache import COMMIT, SHA256, HubCache, HubFile, Repository, cache_root, split_id
from imagesmith.models.safe import git_sha1_of, safe_name, sha256_of

Progress = Callable[[str, int, int | None], None]
"""Told of a download as it goes: file name, bytes so far, bytes in all (None where unknown)."""

TIMEOUT = 10.0
MOST_FILES = 10_000
STALLS = 4
"""Attempts in a row that bring nothing, after which a download is given up; what has arrived is kept even then."""
_log = logging.getLogger("imagesmith")


class Unreachable(HubError):
    """Say that the hub could not be asked: no network, or offline by choice."""


def is_offline(offline: bool | None = None, environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the network is off limits: by argument, else by HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE."""
    environ = os.environ if environ is None else environ
    if offline is not None:
        return offline
    values = (environ.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value in ("1", "ON", "YES", "TRUE") for value in values)


def endpoint_of(environ: Mapping[str, str] | None = None) -> str:
    """Return the hub's address: HF_ENDPOINT, else huggingface.co."""
    environ = os.environ if environ is None else environ
    address = (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise HubError(f"HF_ENDPOINT is {address!r}, but an address that starts with http:// or https:// is expected.")
    return address


def describe(
    repository: str,
    revision: str | None = None,
    *,
    offline: bool | None = None,
    cache: Path | None = None,
    refresh: bool = False,
    known: Iterable[str] = (),
) -> Repository:
    """Return a repository's commit, files and hashes: from the cache if it was described before, else from the hub.

    A branch is pinned to the commit it stood at when it was first asked for; `refresh` asks again. `known` are ids
    to suggest where there is no such repository. Raises `HubError`.
    """
    split_id(f"{repository}@{revision or 'main'}")  # neither may lead out of the cache
    kept = HubCache(cache_root(cache), repository)
    commit = kept.commit_of(revision or "main")
    if commit and not refresh and (recorded := kept.recorded(commit)):
        return recorded
    try:
        if is_offline(offline):
            raise Unreachable(
                f"{repository} is not on this machine and offline mode is on; fetch it once with a network: "
                f"imagesmith models pull {repository}.{_near(repository, known)}"
            )
        described = _ask(repository, revision, known)
    except Unreachable:
        if commit and (seen := kept.seen(commit)):
            return seen
        raise
    with translated(repository, known):
        kept.pin(revision or "main", described.commit)
        kept.record(described)
    return described


def _ask(repository: str, revision: str | None, known: Iterable[str]) -> Repository:
    from huggingface_hub import HfApi

    with translated(repository, known, revision):
        info = HfApi(endpoint=endpoint_of()).model_info(
            repository, revision=revision, files_metadata=True, timeout=TIMEOUT
        )
        siblings = info.siblings or []
        if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha) or len(siblings) > MOST_FILES:
            raise HubError(f"{endpoint_of()} did not answer as a model hub does; check HF_ENDPOINT.")
        files = tuple(file for sibling in siblings if (file := _hub_file(sibling)))
        card = info.card_data
        return Repository(repository, info.sha, files, stated_license(card.get("license") if card else None, info.tags))


def _hub_file(sibling: Any) -> HubFile | None:
    """Read one entry of the listing; a file with a hostile name is left out, as if it were not there."""
    try:
        name = safe_name(sibling.rfilename)
    except BadWeights as error:
        _log.warning("%s", error)
        return None
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    size = sibling.lfs.size if sibling.lfs else sibling.size
    sha256 = sha256 if isinstance(sha256, str) and SHA256.fullmatch(sha256) else None
    git_sha1 = sibling.blob_id if sha256 is None and isinstance(sibling.blob_id, str) else None
    git_sha1 = git_sha1 if git_sha1 and COMMIT.fullmatch(git_sha1) else None
    return HubFile(name, size if isinstance(size, int) and size >= 0 else None, sha256, git_sha1)


def stated_license(stated: Any, tags: Iterable[str] | None) -> str | None:
    """Return the licence a card names, else the one among the tags the hub derives from it."""
    if isinstance(stated, list) and stated:
        stated = stated[0]
    if isinstance(stated, str) and stated:
        return stated[:100]
    return next((tag.removeprefix("license:")[:100] for tag in tags or () if tag.startswith("license:")), None)


def fetch(
    repository: Repository,
    names: Iterable[str],
    *,
    offline: bool | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Bring the named files of a repository into the cache and return the snapshot folder that holds them.

    What is there is not asked for again. Each download streams to disk, resumes where an earlier one was cut, and
    becomes visible only once its hash is what the hub states. Raises `HubError`.
    """
    kept = HubCache(cache_root(cache), repository.id)
    for name in names:
        if kept.has(repository.commit, name):
            continue
        file = repository.file(name)
        if file is None:
            raise HubError(f"{repository.id} has no file {name} at commit {repository.commit[:8]}; check the name.")
        if is_offline(offline):
            raise Unreachable(
                f"{name} of {repository.id} is not on this machine and offline mode is on; fetch it once with a "
                f"network: imagesmith models pull {repository.id}."
            )
        with translated(repository.id, file=name):
            _download(repository, file, kept, progress)
    return kept.snapshot(repository.commit)


def _download(repository: Repository, file: HubFile, kept: HubCache, progress: Progress | None) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    address = endpoint_of()
    url = hf_hub_url(repository.id, file.name, revision=repository.commit, endpoint=address)
    if file.hash is None or file.size is None:
        file = _ask_hash(url, file)
    blob = kept.blob(str(file.hash))
    blob.parent.mkdir(parents=True, exist_ok=True)
    locks = kept.root / ".locks" / kept.folder.name
    locks.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(locks / f"{blob.name}.lock"):
        if not blob.exists():
            _store(url, file, blob, repository, progress)
        kept.link(repository.commit, file, blob)


def _ask_hash(url: str, file: HubFile) -> HubFile:
    """Ask for size and hash of a file whose listing did not state them."""
    from huggingface_hub import get_hf_file_metadata

    stated = get_hf_file_metadata(url, timeout=TIMEOUT)
    etag = stated.etag or ""
    if SHA256.fullmatch(etag):
        return HubFile(file.name, stated.size, sha256=etag)
    if COMMIT.fullmatch(etag):
        return HubFile(file.name, stated.size, git_sha1=etag)
    raise HubError(f"The hub states no hash for {file.name}, so it cannot be checked; it was not downloaded.")


def _store(url: str, file: HubFile, blob: Path, repository: Repository, progress: Progress | None) -> None:
    """Download beside the blob, check, and only then give it its name."""
    partial = blob.with_name(f"{blob.name}.incomplete")
    with partial.open("ab") as target:
        if file.size is not None and target.tell() > file.size:
            target.truncate(0)
        _stream(url, file, target, progress)
        found_size = target.tell()
    if file.size is not None and found_size != file.size:
        partial.unlink()
        raise HubError(
            f"{file.name} of {repository.id} arrived with the wrong size ({found_size:,} bytes instead of "
            f"{file.size:,}); it was deleted, fetch it again."
        )
    found = sha256_of(partial) if file.sha256 else git_sha1_of(partial)
    if found != file.hash:
        partial.unlink()
        kind = "sha256" if file.sha256 else "git sha1"
        raise HubError(
            f"{file.name} of {repository.id} arrived damaged: the hub states {kind} {str(file.hash)[:16]}..., the "
            f"download has {found[:16]}...; it was deleted, fetch it again."
        )
    os.replace(partial, blob)


def _stream(url: str, file: HubFile, target: BinaryIO, progress: Progress | None) -> None:
    """Append the rest of a file as it arrives; where the connection breaks, go on from there."""
    from httpx2 import TransportError

    stalled = 0
    while file.size is None or target.tell() < file.size:
        start = target.tell()
        try:
            _stream_once(url, file, target, progress)
            return
        except TransportError:
            stalled = 0 if target.tell() > start else stalled + 1
            if stalled > STALLS:
                raise
            time.sleep(min(2**stalled / 2, 8))


def _stream_once(url: str, file: HubFile, target: BinaryIO, progress: Progress | None) -> None:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    start = target.tell()
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if start and response.status_code != 206:
            target.truncate(0)  # the server does not know ranges and starts over
        for chunk in response.iter_bytes():
            target.write(chunk)
            done = target.tell()
            if progress is not None:
                progress(file.name, done, file.size)
            if file.size is not None and done > file.size:
                return


def _near(repository: str, known: Iterable[str]) -> str:
    known = list(known)
    return "" if repository in known else did_you_mean(repository, known)


@contextmanager
def translated(
    repository: str, known: Iterable[str] = (), revision: str | None = None, file: str | None = None
) -> Iterator[None]:
    """Turn whatever goes wrong between here and the hub into one `HubError` sentence."""
    from httpx2 import HTTPError, TransportError
    from huggingface_hub import errors

    what = f"{file} of {repository}" if file else repository
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise Unreachable(f"{what} is not on this machine and HF_HUB_OFFLINE is set; unset it to download.") from None
    except errors.GatedRepoError:
        raise HubError(
            f"{what} asks you to accept its terms: do so at {endpoint_of()}/{repository}, then log in with: "
            "hf auth login."
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f'The hub has no model "{repository}", or it is private.{_near(repository, known)} Check the name; '
            "for a private model log in with: hf auth login."
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f'{repository} has no revision "{revision}"; give a branch, a tag or a commit.') from None
    except errors.RemoteEntryNotFoundError:
        raise HubError(f"{what} is listed but missing on the hub; try another revision.") from None
    except TransportError as error:
        reason = str(error).strip()[:120] or type(error).__name__
        kept = " What has arrived is kept: run the same command again." if file else ""
        raise Unreachable(
            f"{what} could not be fetched from {endpoint_of()} ({reason}); check the network.{kept}"
            f"{_near(repository, known)}"
        ) from None
    except HTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise HubError(f"{endpoint_of()} refused {what} (HTTP {status}); try again later.") from None
    except OSError as error:
        raise HubError(f"{what} cannot be stored ({error.strerror or error}); check the cache folder.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise HubError(
            f"{endpoint_of()} did not answer as a model hub does ({str(error)[:80]}); check HF_ENDPOINT."
        ) from None
