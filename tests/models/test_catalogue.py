"""What ships: specs and label sets, and the way from a name to a spec."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imagesmith.core.errors import BadInput, HubError, UnknownModel
from imagesmith.models import catalogue
from imagesmith.models.folder import CONFIG_KEYS, mirrored_pairs
from imagesmith.models.licenses import allows_commercial


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", catalogue.names())
def test_every_spec_is_whole(name: str) -> None:
    spec = catalogue.spec(name)
    assert spec.name == name
    assert spec.source in (f"hub:{name}", name.replace("/", ":"))
    assert spec.license
    assert spec.description.endswith(".")
    assert spec.not_for
    assert set(spec.config) <= CONFIG_KEYS[spec.architecture]
    if name != "starter/detect":  # its garments are chosen in training
        assert len(spec.labels) > 1
    assert spec.revision is None
    if spec.metrics:
        assert all(key.startswith("published_") for key in spec.metrics), "not measured here"


@pytest.mark.parametrize("name", [name for name in catalogue.names() if not name.startswith("starter/")])
def test_configurations_build_the_published_networks(name: str) -> None:
    """The number of parameters is a property of the published architecture, so it tells a wrong width or depth."""
    torch = pytest.importorskip("torch")
    from imagesmith.engines.torch import builder

    spec = catalogue.spec(name)
    millions = {
        "mattmdjaga/segformer_b2_clothes": 27.4,
        "jonathandinu/face-parsing": 84.6,
        "rizvandwiki/gender-classification": 85.8,
        "facebook/detr-resnet-50": 41.6,
        "facebook/detr-resnet-101": 60.6,
    }
    with torch.device("meta"):
        network = builder(spec.architecture).from_config({**spec.config, "num_labels": len(spec.labels)})
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(millions[name], abs=0.25)


def test_label_sets() -> None:
    sizes = {"atr-18": 18, "lip-20": 20, "ccp-59": 59, "celebamask-19": 19, "coco": 91}
    assert catalogue.label_set_names() == tuple(sorted(sizes))
    for name, size in sizes.items():
        known = catalogue.label_set(name)
        assert len(known.labels) == size
        named = [label for label in known.labels if label]
        assert len(set(named)) == len(named)
        assert known.mirrored == mirrored_pairs(known.labels)
    assert sum(1 for label in catalogue.label_set("coco").labels if label) == 80
    assert catalogue.label_set("ccp-59").labels[14] == "dress"
    with pytest.raises(BadInput, match='Did you mean "atr-18"'):
        catalogue.label_set("atr18")


def test_label_sets_equal_those_of_the_data() -> None:
    root = os.environ.get("IMAGESMITH_DATA")
    if not root:
        pytest.skip("set IMAGESMITH_DATA to the folder that holds the data packs")
    data = Path(root) / "data"
    for name, pack in (("ccp-59", "clothes-ccp"), ("celebamask-19", "face-celebamask")):
        labels = json.loads((data / pack / "labels.json").read_text())
        assert [labels[str(index)] for index in range(len(labels))] == list(catalogue.label_set(name).labels)
    categories = json.loads((data / "detection-coco128" / "annotations.json").read_text())["categories"]
    coco = {index: label for index, label in enumerate(catalogue.label_set("coco").labels) if label}
    assert {category["id"]: category["name"] for category in categories} == coco


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("starter/cloths", "starter/clothes"), ("clothes", "starter/clothes"), ("starter/faces", "starter/face")],
)
def test_a_near_miss_is_suggested(name: str, suggestion: str) -> None:
    with pytest.raises(UnknownModel, match=f'Did you mean "{suggestion}"'):
        catalogue.find(name)


@pytest.mark.parametrize(
    "name", ["", "./nowhere", "/no/such/folder", "~/nothing", "a\\b", "x" * 5000, "a/b/c", "..", "\0"]
)
def test_names_of_nothing(name: str) -> None:
    with pytest.raises((UnknownModel, BadInput)) as caught:
        catalogue.find(name)
    assert "\n" not in str(caught.value)


def test_a_near_miss_is_suggested_without_network_too() -> None:
    with pytest.raises(HubError, match='Did you mean "facebook/detr-resnet-50"'):
        catalogue.find("facebook/detr-resnet-5")
    with pytest.raises(UnknownModel, match='There is no folder or file "/nowhere"'):
        catalogue.find("/nowhere")


def test_listing_and_filters() -> None:
    everything = {entry.spec.name for entry in catalogue.entries()}
    assert everything == set(catalogue.names())
    free = {entry.spec.name for entry in catalogue.entries(commercial_only=True)}
    assert "starter/clothes" in free
    assert not {"starter/face", "starter/gender", "jonathandinu/face-parsing"} & free
    segmenting = {entry.spec.name for entry in catalogue.entries(task="segment")}
    assert segmenting == {
        "starter/clothes",
        "starter/face",
        "mattmdjaga/segformer_b2_clothes",
        "jonathandinu/face-parsing",
    }
    assert {entry.spec.name for entry in catalogue.entries(query="SKIRT clothes")} == {
        "starter/clothes",
        "mattmdjaga/segformer_b2_clothes",
    }
    assert json.dumps([entry.to_dict() for entry in catalogue.entries()])


def test_show_needs_no_network() -> None:
    shown = catalogue.show("facebook/detr-resnet-50")
    assert (shown["license"], shown["is_here"], shown["files_known"]) == (
        "Apache-2.0",
        False,
        {"weights": None, "onnx": None},
    )
    assert json.dumps(shown)
    assert catalogue.card("facebook/detr-resnet-50") is None


@pytest.mark.parametrize(
    ("license", "expected"),
    [("MIT", True), ("apache-2.0", True), ("cc-by-nc-sa-4.0", False), ("other", None), ("", None), (None, None),
     ("research-only", False), ("openrail", True), ("gemma", None)],
)  # fmt: skip
def test_licences(license: str | None, expected: bool | None) -> None:
    assert allows_commercial(license) is expected
