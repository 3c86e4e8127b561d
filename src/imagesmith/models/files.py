"""Where a model's files lie on this machine, fetching them first where they must come from the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagesmith.core.errors import BadWeights, HubError, MissingExtra, WeightsMissing
from imagesmith.core.specs import ModelFile, ModelSpec
from imagesmith.models import hub
from imagesmith.models.checkpoint import shard_names
from imagesmith.models.folder import (
    CONFIG,
    PREPROCESSOR,
    infer,
    names_in,
    onnx_among,
    pickle_among,
    read_sums,
    weights_among,
)
from imagesmith.models.formats import sniff
from imagesmith.models.hubcache import COMMIT, HubCache, HubFile, Repository, cache_root
from imagesmith.models.licenses import allows_commercial
from imagesmith.models.safe import git_sha1_of, inside, sha256_of

Kind = Literal["weights", "onnx"]
STARTERS = "imagesmith_starters"


def starters_folder() -> Path | None:
    """Return where the package imagesmith-starters keeps its models, without importing it; None if not installed."""
    found = importlib.util.find_spec(STARTERS)
    places = list(found.submodule_search_locations or ()) if found else []
    return Path(places[0]) / "models" if places else None


def folder_of(spec: ModelSpec) -> Path | None:
    """Return the folder of a starter or of a local model; None for a hub model.

    Raises `WeightsMissing` for a starter that is not installed.
    """
    kind, _, place = spec.source.partition(":")
    if kind == "folder":
        return Path(place)
    if kind != "starter":
        return None
    folder = starters_folder()
    if folder is None:
        raise WeightsMissing(
            f"{spec.name} comes with the package imagesmith-starters, which is not installed; install it with: "
            "pip install imagesmith-starters"
        )
    if not (folder / place / CONFIG).is_file():
        raise WeightsMissing(
            f"{spec.name} is not in the installed imagesmith-starters ({folder}); upgrade it with: "
            "pip install --upgrade imagesmith-starters"
        )
    return folder / place


def hub_id(spec: ModelSpec) -> str | None:
    """Return the repository of a hub model, None for any other."""
    kind, _, place = spec.source.partition(":")
    return place if kind == "hub" else None


def torch_is_installed() -> bool:
    """Tell whether torch could be imported, without importing it."""
    return importlib.util.find_spec("torch") is not None


def locate(
    spec: ModelSpec,
    kind: Kind,
    *,
    allow_pickle: bool = False,
    offline: bool | None = None,
    cache: Path | None = None,
    progress: hub.Progress | None = None,
) -> Path:
    """Return the path of a model's weights or of its ONNX file, downloading it first where need be.

    Raises `WeightsMissing` where the model has no such file, `BadWeights` for a pickle that was not allowed,
    `HubError` where a download fails.
    """
    folder = folder_of(spec)
    if folder is not None:
        return _locate_in_folder(spec, kind, folder, allow_pickle)
    repository = _described(spec, offline, cache)
    name = _choose(repository.names, kind, spec, allow_pickle)
    wanted = [name for name in (CONFIG, PREPROCESSOR) if name in repository.names] + [name]
    wanted += [beside for beside in (f"{name}_data", f"{name}.data") if beside in repository.names]
    folder = hub.fetch(repository, wanted, offline=offline, cache=cache, progress=progress)
    path = inside(folder, name)
    if kind == "weights" and name.endswith(".index.json"):
        hub.fetch(repository, shard_names(path), offline=offline, cache=cache, progress=progress)
    return path


def _described(spec: ModelSpec, offline: bool | None, cache: Path | None) -> Repository:
    repository = hub_id(spec)
    if repository is None:
        raise WeightsMissing(f'{spec.name} has the source "{spec.source}", but starter:, folder: or hub: is expected.')
    return hub.describe(repository, spec.revision, offline=offline, cache=cache)


def _locate_in_folder(spec: ModelSpec, kind: Kind, folder: Path, allow_pickle: bool) -> Path:
    stated = spec.weights if kind == "weights" else spec.onnx
    name = stated.path if stated else _choose(names_in(folder), kind, spec, allow_pickle)
    path = inside(folder, name)
    if not path.is_file():
        raise WeightsMissing(f"{spec.name} has no file {name} in {folder}; copy it there, or train or fetch the model.")
    if kind == "weights" and not allow_pickle and sniff(path) == "pickle":
        raise _pickle_refused(spec, name)
    return path


def _choose(names: Iterable[str], kind: Kind, spec: ModelSpec, allow_pickle: bool) -> str:
    names = list(names)
    if kind == "onnx":
        if name := onnx_among(names):
            return name
        raise WeightsMissing(
            f'{spec.name} has no ONNX file; install torch to convert it: pip install "imagesmith[torch]".'
        )
    if name := weights_among(names):
        return name
    name = pickle_among(names)
    if name and allow_pickle:
        return name
    if name:
        raise _pickle_refused(spec, name)
    raise WeightsMissing(f"{spec.name} has no safetensors weights; give a model that has a model.safetensors.")


def _pickle_refused(spec: ModelSpec, name: str) -> BadWeights:
    return BadWeights(
        f"{spec.name} has its weights only as a pickle ({name}), which can run code when it is opened; use "
        "--allow-pickle to load plain tensors from it, or a model with safetensors."
    )


def has(spec: ModelSpec, kind: Kind, *, allow_pickle: bool = True, cache: Path | None = None) -> bool | None:
    """Tell, without network, whether a model has weights or an ONNX file; None where only the hub knows.

    Weights that exist only as pytorch_model.bin count where `allow_pickle` is set.
    """
    try:
        folder = folder_of(spec)
    except WeightsMissing:
        return False
    if folder is not None:
        stated = spec.weights if kind == "weights" else spec.onnx
        if stated is None:
            return _among(names_in(folder), kind, allow_pickle)
        pickled = kind == "weights" and pickle_among([stated.path]) is not None
        return (folder / stated.path).is_file() and (allow_pickle or not pickled)
    kept = HubCache(cache_root(cache), str(hub_id(spec)))
    commit = kept.commit_of(spec.revision or "main")
    recorded = kept.recorded(commit) if commit else None
    return _among(recorded.names, kind, allow_pickle) if recorded else None


def _among(names: Iterable[str], kind: Kind, allow_pickle: bool = True) -> bool:
    names = list(names)
    if kind == "onnx":
        return onnx_among(names) is not None
    return weights_among(names) is not None or (allow_pickle and pickle_among(names) is not None)


def is_here(spec: ModelSpec, *, cache: Path | None = None) -> bool:
    """Tell whether a model's weights or ONNX file is on this machine already."""
    if hub_id(spec) is None:
        return bool(has(spec, "weights") or has(spec, "onnx"))
    kept = HubCache(cache_root(cache), str(hub_id(spec)))
    commit = kept.commit_of(spec.revision or "main")
    names = names_in(kept.snapshot(commit)) if commit else []
    return _among(names, "weights") or _among(names, "onnx")


def read_spec(spec: ModelSpec, *, offline: bool | None = None, cache: Path | None = None) -> ModelSpec:
    """Complete a spec by the model's own files: configuration, labels, preprocessing, weights, pinned revision.

    What the catalogue says about licence, use and figures stays. A hub model's configuration is fetched if it is
    not here. Raises `HubError`, `WeightsMissing`, `BadWeights` or `UnknownModel`.
    """
    folder = folder_of(spec)
    if folder is None:
        return read_repository(_described(spec, offline, cache), spec, offline=offline, cache=cache)
    return _keep_known(infer(folder, name=spec.name, source=spec.source), spec)


def read_repository(
    repository: Repository, known: ModelSpec | None = None, *, offline: bool | None = None, cache: Path | None = None
) -> ModelSpec:
    """Make a spec from a hub repository by its configuration files, which are fetched if they are not here."""
    if CONFIG not in repository.names:
        raise HubError(f"{repository.id} has no {CONFIG}, so its network is unknown; give another model.")
    names = [name for name in (CONFIG, PREPROCESSOR) if name in repository.names]
    folder = hub.fetch(repository, names, offline=offline, cache=cache)
    read = infer(folder, name=repository.id, source=f"hub:{repository.id}")
    update = {
        "revision": repository.commit,
        "weights": _stated(repository, weights_among(repository.names) or pickle_among(repository.names)),
        "onnx": _stated(repository, onnx_among(repository.names)),
        "license": repository.license or "unknown",
        "commercial": allows_commercial(repository.license),
    }
    return _keep_known(read.model_copy(update=update), known)


def _keep_known(read: ModelSpec, known: ModelSpec | None) -> ModelSpec:
    """Let the catalogue have the last word on what a model's files do not say."""
    if known is None:
        return read
    kept = ("license", "commercial", "description", "not_for", "metrics")
    return read.model_copy(update={name: getattr(known, name) for name in kept})


def _stated(repository: Repository, name: str | None) -> ModelFile | None:
    file = repository.file(name) if name else None
    return ModelFile(path=file.name, sha256=file.sha256, size=file.size) if file else None


@dataclass(frozen=True)
class FileCheck:
    """What became of one file's check."""

    path: Path
    state: Literal["ok", "damaged", "unstated"]
    """unstated: nobody said what it should hash to."""
    expected: str | None
    actual: str


def verify(spec: ModelSpec, *, cache: Path | None = None, progress: hub.Progress | None = None) -> list[FileCheck]:
    """Hash a model's files on this machine and compare with what the hub, the spec or SHA256SUMS states.

    Raises `WeightsMissing` where none of its files is here.
    """
    folder = folder_of(spec)
    if folder is None:
        expected, folder = _stated_by_hub(spec, cache)
    else:
        sums = read_sums(folder)
        stated = {file.path: file.sha256 for file in (spec.weights, spec.onnx) if file and file.sha256}
        names = {*sums, *stated, CONFIG, PREPROCESSOR} | {file.path for file in (spec.weights, spec.onnx) if file}
        expected = {name: HubFile(name, sha256=stated.get(name) or sums.get(name)) for name in names}
    checks = []
    for name in sorted(expected):
        path = inside(folder, name)
        if path.is_file():
            checks.append(_check(path, expected[name], progress))
        elif expected[name].sha256 and expected[name].size is None:
            checks.append(FileCheck(path, "damaged", expected[name].sha256, "missing"))
    if not checks:
        raise WeightsMissing(f"{spec.name} is not on this machine; fetch it with: imagesmith models pull {spec.name}")
    return checks


def _stated_by_hub(spec: ModelSpec, cache: Path | None) -> tuple[dict[str, HubFile], Path]:
    kept = HubCache(cache_root(cache), str(hub_id(spec)))
    commit = kept.commit_of(spec.revision or "main")
    repository = (kept.recorded(commit) or kept.seen(commit)) if commit else None
    if repository is None:
        raise WeightsMissing(f"{spec.name} is not on this machine; fetch it with: imagesmith models pull {spec.name}")
    return {file.name: file for file in repository.files}, kept.snapshot(repository.commit)


def _check(path: Path, file: HubFile, progress: hub.Progress | None) -> FileCheck:
    total, done = path.stat().st_size, 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(path.name, done, total)

    actual = git_sha1_of(path) if file.git_sha1 and not file.sha256 else sha256_of(path, tick)
    if file.hash is None:
        return FileCheck(path, "unstated", None, actual)
    return FileCheck(path, "ok" if actual == file.hash else "damaged", file.hash, actual)


def pull(
    spec: ModelSpec,
    kinds: Iterable[Kind] | None = None,
    *,
    allow_pickle: bool = False,
    cache: Path | None = None,
    progress: hub.Progress | None = None,
) -> list[Path]:
    """Fetch a model so that it runs without network; `kinds` defaults to what this installation can use.

    With torch that is the weights (any engine's file is converted from them), without torch the ONNX file. A hub
    model's branch is asked for anew, so that this also updates. Raises `MissingExtra` where only torch could run it.
    """
    if repository := hub_id(spec):
        moves = not COMMIT.fullmatch(spec.revision or "")
        described = hub.describe(repository, spec.revision, cache=cache, refresh=moves)
        spec = spec.model_copy(update={"revision": described.commit})
    wanted = tuple(kinds) if kinds is not None else (_usable_kind(spec, allow_pickle, cache),)
    return [locate(spec, kind, allow_pickle=allow_pickle, cache=cache, progress=progress) for kind in wanted]


def _usable_kind(spec: ModelSpec, allow_pickle: bool, cache: Path | None) -> Kind:
    """Return the kind of file this installation runs a model from."""
    has_onnx = has(spec, "onnx", cache=cache)
    if torch_is_installed():
        usable = has(spec, "weights", allow_pickle=allow_pickle, cache=cache)
        return "weights" if usable or not has_onnx else "onnx"
    if not has_onnx:
        raise MissingExtra(f"{spec.name} has no ONNX file, and converting its weights", "torch")
    return "onnx"
