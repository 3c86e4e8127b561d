"""The models imagesmith knows by name, and the way from any name to a `ModelSpec`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files as resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imagesmith.core.errors import BadInput, UnknownModel, did_you_mean
from imagesmith.core.specs import ModelFile, ModelSpec, Task
from imagesmith.models import files, hub
from imagesmith.models.folder import infer, mirrored_pairs
from imagesmith.models.formats import sniff
from imagesmith.models.hubcache import REPOSITORY_ID, split_id
from imagesmith.models.safe import read_json

_SUFFIX = ".toml"


@dataclass(frozen=True)
class LabelSet:
    """A well-known list of labels, in its published order."""

    name: str
    title: str
    source: str
    labels: tuple[str, ...]
    mirrored: tuple[tuple[int, int], ...]


def _data(folder: str) -> Traversable:
    return resources("imagesmith.models") / folder


def label_set_names() -> tuple[str, ...]:
    """Return the names of the label sets that ship.

    >>> label_set_names()
    ('atr-18', 'ccp-59', 'celebamask-19', 'coco', 'lip-20')
    """
    return tuple(sorted(entry.name.removesuffix(".json") for entry in _data("labels").iterdir()))


def label_set(name: str) -> LabelSet:
    """Return a label set by name; raises `BadInput` for an unknown one.

    >>> label_set("atr-18").labels[9:11], label_set("atr-18").mirrored[0]
    (('Left-shoe', 'Right-shoe'), (9, 10))
    """
    if name not in label_set_names():
        known = label_set_names()
        raise BadInput(f'There is no label set "{name}".{did_you_mean(name, known)} There are: {", ".join(known)}.')
    values = json.loads((_data("labels") / f"{name}.json").read_text(encoding="utf-8"))
    mirrored = tuple((left, right) for left, right in values["mirrored"])
    return LabelSet(values["name"], values["title"], values["source"], tuple(values["labels"]), mirrored)


def names() -> tuple[str, ...]:
    """Return the names of the catalogue, starters first.

    >>> names()[:2]
    ('starter/clothes', 'starter/detect')
    """
    stems = (entry.name.removesuffix(_SUFFIX) for entry in _data("specs").iterdir() if entry.name.endswith(_SUFFIX))
    known = (stem.replace("--", "/") for stem in stems)
    return tuple(sorted(known, key=lambda name: (not name.startswith("starter/"), name)))


def spec(name: str) -> ModelSpec:
    """Return what the catalogue says about a model, without network and without its files.

    Raises `UnknownModel` with near names.

    >>> spec("facebook/detr-resnet-50").labels[1]
    'person'
    """
    if name not in names():
        raise _unknown(name)
    values = tomllib.loads((_data("specs") / f"{name.replace('/', '--')}{_SUFFIX}").read_text(encoding="utf-8"))
    labels = values.pop("labels", [])
    if isinstance(labels, str):
        known = label_set(labels)
        values |= {"labels": known.labels, "mirrored": known.mirrored}
    else:
        values |= {"labels": tuple(labels), "mirrored": mirrored_pairs(labels)}
    try:
        return ModelSpec.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"The catalogue's entry {name} is wrong: {error.errors()[0]['msg']}.") from None


def _unknown(name: str) -> UnknownModel:
    known = names()
    near = did_you_mean(name, known) or did_you_mean(f"starter/{name}", known)
    return UnknownModel(
        f'There is no model "{name}".{near} Give a name of the catalogue ({", ".join(known)}), a hub id '
        "(owner/name) or a folder."
    )


def find(name: str, *, offline: bool | None = None, cache: Path | None = None) -> ModelSpec:
    """Return the spec of a model that is about to be used: catalogue name, hub id (also owner/name@revision) or folder.

    The model's own files have the last word on labels and preprocessing: a hub model's small configuration files
    are fetched, its weights are not. Without network a catalogue model answers with what the catalogue says.
    Raises `UnknownModel`, `WeightsMissing` (a starter that is not installed), `HubError`, `BadWeights`.
    """
    if name in names():
        listed = spec(name)
        try:
            return _with_figures(files.read_spec(listed, offline=offline, cache=cache))
        except hub.Unreachable:
            return listed
    if (folder := _local(name)) is not None:
        return folder
    if name.startswith((".", "/", "~")) or "\\" in name:
        raise UnknownModel(f'There is no folder or file "{name[:200]}"; check the path.')
    if not REPOSITORY_ID.fullmatch(name.partition("@")[0]) or name.startswith("starter/"):
        raise _unknown(name)
    repository, revision = split_id(name)
    described = hub.describe(repository, revision, offline=offline, cache=cache, known=names())
    known = spec(repository) if repository in names() else None
    return files.read_repository(described, known, offline=offline, cache=cache)


def _local(name: str) -> ModelSpec | None:
    """Read a model from a folder, or from the folder of one weights or ONNX file."""
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return infer(path, name=name)
        if not path.is_file():
            return None
    except OSError:  # a name longer than the system allows, or one that may not be looked at
        return None
    kind, other = ("onnx", "weights") if sniff(path) == "onnx" else ("weights", "onnx")
    file = ModelFile(path=path.name, size=path.stat().st_size)
    return infer(path.parent, name=name).model_copy(update={kind: file, other: None})


def _with_figures(read: ModelSpec) -> ModelSpec:
    """Add a starter's measured figures from its metrics.json."""
    folder = files.folder_of(read)
    path = folder / "metrics.json" if folder else None
    if path is None or not path.is_file():
        return read
    measured = read_json(path)
    figures = {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}
    return read.model_copy(update={"metrics": {**read.metrics, **figures}})


def pull(
    name: str,
    kinds: Iterable[files.Kind] | None = None,
    *,
    allow_pickle: bool = False,
    cache: Path | None = None,
    progress: hub.Progress | None = None,
) -> list[Path]:
    """Fetch a model by name so that it runs without network, or bring it up to date; see `files.pull`.

    A hub model named without @revision is asked for anew and pinned to the commit its main branch stands at now.
    """
    plain, _, revision = name.partition("@")
    if plain in names() and not plain.startswith("starter/"):
        known = spec(plain).model_copy(update={"revision": revision or None})
    else:
        known = find(name, cache=cache)
        if not revision and files.hub_id(known) is not None:
            known = known.model_copy(update={"revision": None})
    return files.pull(known, kinds, allow_pickle=allow_pickle, cache=cache, progress=progress)


@dataclass(frozen=True)
class Entry:
    """One line of `imagesmith models list`."""

    spec: ModelSpec
    is_here: bool
    """Whether its weights are on this machine."""

    def to_dict(self) -> dict[str, Any]:
        shown = self.spec
        return {
            "name": shown.name,
            "task": shown.task,
            "architecture": shown.architecture,
            "labels": sum(1 for label in shown.labels if label),
            "license": shown.license,
            "commercial": shown.commercial,
            "is_here": self.is_here,
            "metrics": dict(shown.metrics),
            "description": shown.description,
        }


def entries(
    *, task: Task | None = None, commercial_only: bool = False, query: str | None = None, cache: Path | None = None
) -> list[Entry]:
    """List the catalogue, without network.

    `commercial_only` leaves out models whose licence forbids commercial use (those that do not say stay, marked
    None); `query` keeps models whose name, description or labels have all of its words.
    """
    found = []
    for name in names():
        known = _as_installed(spec(name))
        words = f"{known.name} {known.description} {known.license} {' '.join(known.labels)}".casefold()
        if task not in (None, known.task) or (commercial_only and known.commercial is False):
            continue
        if all(word in words for word in (query or "").casefold().split()):
            found.append(Entry(known, files.is_here(known, cache=cache)))
    return found


def _as_installed(known: ModelSpec) -> ModelSpec:
    """Read a starter's files where it is installed, so that its labels and figures are those of its weights."""
    folder = files.starters_folder()
    if not known.is_starter or folder is None or not (folder / known.source.partition(":")[2]).is_dir():
        return known
    return _with_figures(files.read_spec(known))


def show(name: str, *, offline: bool | None = None, cache: Path | None = None) -> dict[str, Any]:
    """Return everything known about one model as plain values; a catalogue model is shown without network."""
    known = _as_installed(spec(name)) if name in names() else find(name, offline=offline, cache=cache)
    shown = known.model_dump(mode="json")
    shown["is_here"] = files.is_here(known, cache=cache)
    shown["files_known"] = {kind: files.has(known, kind, cache=cache) for kind in ("weights", "onnx")}
    return shown


def card(name: str) -> str | None:
    """Return the text of a starter's card, None where a model has none on this machine."""
    folder = files.folder_of(spec(name)) if name in names() else None
    path = folder / "card.md" if folder else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else None
