"""Finding, choosing and verifying a model's files in local folders and starters."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from imagesmith.core.errors import BadWeights, WeightsMissing
from imagesmith.models import catalogue, files
from imagesmith.models.folder import infer, write_sums

CONFIG = {"model_type": "segformer", "id2label": {"0": "left eye", "1": "right eye"}}
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(SAFETENSORS)
    return tmp_path


@pytest.fixture
def starters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend an installed imagesmith-starters with one model."""
    package = tmp_path / "site" / files.STARTERS
    clothes = package / "models" / "clothes"
    clothes.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    labels = {str(index): label for index, label in enumerate(catalogue.label_set("ccp-59").labels)}
    (clothes / "config.json").write_text(json.dumps({"model_type": "segformer", "id2label": labels}))
    (clothes / "preprocessor_config.json").write_text('{"size": {"height": 288, "width": 192}}')
    (clothes / "model.safetensors").write_bytes(SAFETENSORS)
    (clothes / "model.onnx").write_bytes(b"\x08\x08\x12")
    (clothes / "metrics.json").write_text('{"pixel_accuracy": 0.85, "classes": {"hair": 0.7}, "note": "x"}')
    (clothes / "card.md").write_text("# The card")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, files.STARTERS, raising=False)
    return package


def test_weights_and_onnx_of_a_folder(folder: Path) -> None:
    spec = infer(folder)
    assert files.locate(spec, "weights") == folder / "model.safetensors"
    assert (files.has(spec, "weights"), files.has(spec, "onnx"), files.is_here(spec)) == (True, False, True)
    with pytest.raises(WeightsMissing, match=r"no ONNX file; .*imagesmith\[torch\]"):
        files.locate(spec, "onnx")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=r"no file model.safetensors"):
        files.locate(spec, "weights")
    assert files.is_here(spec) is False


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_is_refused_whatever_it_is_called(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x02}q\x00.")
    spec = infer(folder)
    with pytest.raises(BadWeights, match="only as a pickle"):
        files.locate(spec, "weights")
    assert files.locate(spec, "weights", allow_pickle=True).name == name


def test_a_model_file_that_leads_elsewhere(folder: Path) -> None:
    spec = infer(folder).model_copy(update={"weights": infer(folder).weights.model_copy(update={"path": "../../x"})})  # type: ignore[union-attr]
    with pytest.raises(BadWeights, match="leads out of its folder"):
        files.locate(spec, "weights")


def test_verify_by_sums(folder: Path) -> None:
    spec = infer(folder)
    assert {check.state for check in files.verify(spec)} == {"unstated"}
    good = hashlib.sha256(SAFETENSORS).hexdigest()
    (folder / "SHA256SUMS").write_text(
        f"{good}  model.safetensors\n{'0' * 64} *config.json\n{'1' * 64}  gone.onnx\nnot a line\n"
    )
    states = {check.path.name: check.state for check in files.verify(infer(folder))}
    assert states == {"model.safetensors": "ok", "config.json": "damaged", "gone.onnx": "damaged"}
    weights = infer(folder).weights
    assert weights is not None
    assert weights.sha256 == good


def test_sums_are_written_as_sha256sum_reads_them(folder: Path) -> None:
    path = write_sums(folder)
    assert path.name == "SHA256SUMS"
    assert len(path.read_text().splitlines()) == 2
    assert {check.state for check in files.verify(infer(folder))} == {"ok"}
    (folder / "config.json").write_text("{}")
    assert {check.path.name: check.state for check in files.verify(infer_from(folder))} == {
        "config.json": "damaged",
        "model.safetensors": "ok",
    }


def infer_from(folder: Path) -> Any:
    """Describe a folder whose configuration has been damaged by what it said before."""
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    spec = infer(folder)
    (folder / "config.json").write_text(text)
    return spec


def test_a_starter_is_found_without_importing_its_package(starters: Path) -> None:
    spec = catalogue.find("starter/clothes")
    assert spec.preprocessing.height == 288
    assert (spec.license, spec.commercial, spec.architecture) == ("Apache-2.0", True, "segformer")
    assert spec.metrics == {"pixel_accuracy": 0.85}
    assert files.locate(spec, "onnx") == starters / "models" / "clothes" / "model.onnx"
    assert files.locate(catalogue.spec("starter/clothes"), "weights").name == "model.safetensors"
    assert catalogue.card("starter/clothes") == "# The card"
    assert spec.is_starter
    listed = {entry.spec.name: entry.is_here for entry in catalogue.entries()}
    assert listed["starter/clothes"] is True
    assert listed["starter/face"] is False
    assert files.STARTERS not in sys.modules


def test_a_starter_that_is_not_installed(starters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsMissing, match="upgrade it with: pip install --upgrade imagesmith-starters"):
        catalogue.find("starter/face")
    monkeypatch.setattr(files, "STARTERS", "no_such_package")
    with pytest.raises(WeightsMissing, match="pip install imagesmith-starters"):
        catalogue.find("starter/clothes")
    assert catalogue.spec("starter/clothes").labels[14] == "dress"
    assert files.is_here(catalogue.spec("starter/clothes")) is False


def test_pull_of_what_is_here_needs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = infer(folder)
    assert files.pull(spec, ("weights",)) == [folder / "model.safetensors"]


def test_a_weights_file_stands_for_its_folder(folder: Path) -> None:
    (folder / "other.safetensors").write_bytes(SAFETENSORS)
    spec = catalogue.find(str(folder / "other.safetensors"))
    assert files.locate(spec, "weights").name == "other.safetensors"
    (folder / "graph.bin").write_bytes(b"\x08\x08\x12\x04tiny")
    spec = catalogue.find(str(folder / "graph.bin"))  # by content, not by suffix
    assert files.locate(spec, "onnx").name == "graph.bin"


def test_unknown_kind_of_source(folder: Path) -> None:
    spec: Any = infer(folder).model_copy(update={"source": "elsewhere"})
    with pytest.raises(WeightsMissing):
        files.locate(spec, "weights")
