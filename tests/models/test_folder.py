"""Folders become specs: every generation of configuration, gaps in labels, hostile values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesmith.core.errors import BadWeights, UnknownModel
from imagesmith.core.specs import Preprocessing
from imagesmith.models.folder import (
    CONFIG_KEYS,
    allowed_config,
    architecture_of,
    infer,
    labels_of,
    mirrored_pairs,
    onnx_among,
    weights_among,
)
from imagesmith.models.preprocessor import DEFAULTS, preprocessing_from, preprocessor_config
from imagesmith.models.safe import inside, read_json, safe_name

HERE = Path("config.json")
# The three generations of DETR configurations, invented and small.
OLDEST_DETR = {
    "architectures": ["DetrForObjectDetection"],
    "model_type": "detr",
    "backbone": "resnet50",
    "d_model": 64,
    "dilation": False,
    "id2label": {"0": "N/A", "1": "person", "3": "car"},
}
TIMM_DETR = {**OLDEST_DETR, "use_timm_backbone": True, "use_pretrained_backbone": True, "backbone_config": None}
SAVED_DETR = {
    **OLDEST_DETR,
    "backbone": None,
    "dilation": None,
    "backbone_config": {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 16], "top_k": 50, "_name": "x"},
    "use_timm_backbone": False,
}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def make(config: object, preprocessor: object = None, **others: bytes) -> Path:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        if preprocessor is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        for name, content in others.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return tmp_path

    return make


@pytest.mark.parametrize("config", [OLDEST_DETR, TIMM_DETR, SAVED_DETR])
def test_three_generations_of_detr(make: Any, config: dict[str, Any]) -> None:
    spec = infer(make(config, {"size": 800, "max_size": 1333, "feature_extractor_type": "DetrFeatureExtractor"}))
    assert (spec.architecture, spec.task) == ("detr", "detect")
    assert spec.labels == ("", "person", "", "car")
    assert spec.config["num_labels"] == 3
    assert (spec.preprocessing.shortest_edge, spec.preprocessing.longest_edge) == (800, 1333)
    assert None not in spec.config.values()


def test_the_backbones_record_keeps_what_shapes_it(make: Any) -> None:
    backbone = infer(make(SAVED_DETR)).config["backbone_config"]
    assert backbone == {"depths": [1, 1], "hidden_sizes": [8, 16], "model_type": "resnet"}


def test_published_configurations_load() -> None:
    root = os.environ.get("IMAGESMITH_DATA")
    if not root:
        pytest.skip("set IMAGESMITH_DATA to the folder that holds fixtures/configs")
    folders = sorted((Path(root) / "fixtures" / "configs").iterdir())
    assert len(folders) >= 6
    found = {folder.name: infer(folder) for folder in folders}
    kinds = {name: spec.architecture for name, spec in found.items()}
    assert set(kinds.values()) == {"detr", "segformer", "vit"}
    for name, spec in found.items():
        assert spec.preprocessing.resample == "bilinear"
        assert spec.preprocessing.mean == (0.485, 0.456, 0.406)
        if spec.architecture == "detr":
            assert (spec.preprocessing.shortest_edge, spec.preprocessing.longest_edge) == (800, 1333), name
            assert (len(spec.labels), spec.labels[0], spec.labels[1]) == (91, "", "person")
        else:
            assert spec.preprocessing.height == spec.preprocessing.width
    assert found["face-parsing-b5"].mirrored == ((4, 5), (6, 7), (8, 9))
    assert len(found["vit-classifier"].labels) == 1000
    assert found["segformer-b0-ade"].labels[7] == "bed"


@pytest.mark.slow
def test_published_preprocessing_equals_that_of_transformers() -> None:
    root = os.environ.get("IMAGESMITH_DATA")
    if not root:
        pytest.skip("set IMAGESMITH_DATA to the folder that holds fixtures/configs")
    transformers = pytest.importorskip("transformers")
    classes = {
        "segformer": "SegformerImageProcessorPil",
        "vit": "ViTImageProcessorPil",
        "detr": "DetrImageProcessorPil",
    }
    for folder in sorted((Path(root) / "fixtures" / "configs").iterdir()):
        spec = infer(folder)
        values = read_json(folder / "preprocessor_config.json")
        theirs = getattr(transformers, classes[spec.architecture]).from_dict(values)
        ours = spec.preprocessing.model_dump(exclude_none=True)
        size = {key: value for key, value in dict(theirs.size).items() if value is not None}
        assert {key: ours[key] for key in ("height", "width", "shortest_edge", "longest_edge") if key in ours} == size
        assert (list(ours["mean"]), list(ours["std"])) == (list(theirs.image_mean), list(theirs.image_std))
        assert ours["rescale_factor"] == pytest.approx(theirs.rescale_factor)
        assert int(theirs.resample) == 2
        assert ours["resample"] == "bilinear"


SIZES: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("segformer", {}, {"height": 512, "width": 512}),
    ("segformer", {"size": 384}, {"height": 384, "width": 384}),
    ("segformer", {"size": {"height": 64, "width": 96}}, {"height": 64, "width": 96}),
    ("segformer", {"size": {"shortest_edge": 224}}, {"height": 224, "width": 224}),
    ("segformer", {"size": {"longest_edge": 512}, "size_divisor": 32}, {"longest_edge": 512, "multiple_of": 32}),
    ("segformer", {"do_resize": False, "size": 99}, {"height": 512, "width": 512}),
    ("vit", {"size": 224}, {"height": 224, "width": 224}),
    ("vit", {"size": [192, 128]}, {"height": 192, "width": 128}),
    ("vit", {}, {"height": 384, "width": 384}),
    ("detr", {"size": 800, "max_size": 1333}, {"shortest_edge": 800, "longest_edge": 1333}),
    ("detr", {"size": 600}, {"shortest_edge": 600, "longest_edge": 1333}),
    ("detr", {"size": {"shortest_edge": 800, "longest_edge": 1333}}, {"shortest_edge": 800, "longest_edge": 1333}),
    ("detr", {"size": {"height": 256, "width": 256}}, {"height": 256, "width": 256}),
    ("detr", {"size": {"max_height": 640, "max_width": 480}}, {"longest_edge": 480}),
    ("transformers", {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, {"height": 224}),
    ("transformers", {"size": {"shortest_edge": 256}}, {"shortest_edge": 256}),
]


@pytest.mark.parametrize(("architecture", "values", "expected"), SIZES)
def test_every_form_of_size(architecture: str, values: dict[str, Any], expected: dict[str, int]) -> None:
    read = preprocessing_from(values, architecture, 384 if architecture == "vit" else 224, HERE)
    for key, value in expected.items():
        assert getattr(read, key) == value
    given_ways = {read.height is not None, read.shortest_edge is not None}
    assert given_ways == {True, False} or (read.longest_edge is not None and read.height is None)


def test_switches_and_codes() -> None:
    read = preprocessing_from({"do_rescale": False, "do_normalize": False, "resample": 3}, "vit", None, HERE)
    assert (read.rescale_factor, read.mean, read.std, read.resample) == (1.0, (0, 0, 0), (1, 1, 1), "bicubic")
    codes = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", "PIL.Image.BICUBIC": "bicubic"}
    for code, name in codes.items():
        assert preprocessing_from({"resample": code}, "vit", None, HERE).resample == name
    assert preprocessing_from({"image_mean": 0.5, "image_std": [0.5]}, "detr", None, HERE).std == (0.5, 0.5, 0.5)
    assert preprocessing_from({}, "vit", None, HERE).mean == (0.5, 0.5, 0.5)
    assert preprocessing_from({}, "segformer", 224, HERE) == DEFAULTS["segformer"]


BAD_VALUES: list[dict[str, Any]] = [
    {"size": "large"}, {"size": {"sides": 3}}, {"size": 0}, {"size": -5}, {"size": 10**9}, {"size": True}, {"size": {}},
    {"size": {"height": "512", "width": 512}}, {"size": [1, 2, 3]}, {"resample": 9}, {"resample": []},
    {"image_mean": [0.5, 0.5]}, {"image_mean": ["a", "b", "c"]}, {"image_std": [0, 1, 1]}, {"image_std": [1, 1, -1]},
    {"image_std": [1, 1, 1e400]}, {"rescale_factor": None}, {"rescale_factor": "1/255"}, {"size_divisor": "x"},
]  # fmt: skip


@pytest.mark.parametrize("values", BAD_VALUES)
def test_bad_preprocessing_is_one_sentence(values: dict[str, Any]) -> None:
    with pytest.raises(BadWeights, match=r"^config.json: "):
        preprocessing_from(values, "segformer", None, HERE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = ["size", "max_size", "resample", "image_mean", "image_std", "rescale_factor", "do_resize", "do_center_crop",
        "crop_size", "size_divisor", "do_normalize"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), json_values), st.sampled_from(sorted(DEFAULTS)), json_values)
def test_any_preprocessor_is_read_or_refused(values: dict[str, Any], architecture: str, image_size: Any) -> None:
    try:
        read = preprocessing_from(values, architecture, image_size, HERE)
    except BadWeights:
        return
    assert read.height or read.shortest_edge or read.longest_edge


@given(st.dictionaries(st.sampled_from(sorted(CONFIG_KEYS["detr"] | {"id2label", "architectures"})), json_values))
def test_any_configuration_is_read_or_refused(config: dict[str, Any]) -> None:
    try:
        architecture, _ = architecture_of(config, "here")
        allowed_config(config, architecture, HERE)
        labels_of(config, HERE)
    except (BadWeights, UnknownModel):
        pass


@given(
    st.one_of(
        st.builds(lambda h, w: {"height": h, "width": w}, st.integers(1, 2048), st.integers(1, 2048)),
        st.builds(lambda s, m: {"shortest_edge": s, "longest_edge": m}, st.integers(1, 999), st.integers(999, 2048)),
        st.builds(lambda s, m: {"longest_edge": s, "multiple_of": m}, st.integers(1, 2048), st.sampled_from([1, 32])),
    ),
    st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    st.sampled_from(sorted(DEFAULTS)),
)
def test_what_is_written_is_read_back(size: dict[str, int], resample: Any, architecture: str) -> None:
    preprocessing = Preprocessing(**size, resample=resample, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    written = json.loads(json.dumps(preprocessor_config(preprocessing, architecture)))
    assert preprocessing_from(written, architecture, 99, HERE) == preprocessing


def test_architectures() -> None:
    def read(name: str, model_type: str | None = None) -> tuple[str, str]:
        return architecture_of({"architectures": [name], "model_type": model_type}, "here")

    assert read("SegformerForSemanticSegmentation") == ("segformer", "segment")
    assert read("SegformerForImageClassification", "segformer") == ("transformers", "classify")
    assert read("UperNetForSemanticSegmentation") == ("transformers", "segment")
    assert read("Mask2FormerForUniversalSegmentation") == ("transformers", "segment")
    assert read("YolosForObjectDetection") == ("transformers", "detect")
    assert architecture_of({"model_type": "vit"}, "here") == ("vit", "classify")
    for config in (
        {},
        {"architectures": []},
        {"architectures": ["BertModel"], "model_type": "vit"},
        {"architectures": [3]},
    ):
        with pytest.raises(UnknownModel, match="neither segments, classifies nor detects"):
            architecture_of(config, "here")


def test_keys_that_are_not_known_never_pass(make: Any) -> None:
    hostile = {
        "_attn_implementation_internal": "someone/kernel",
        "attn_implementation": "someone/kernel",
        "auto_map": {"AutoModel": "evil--evil.Evil"},
        "quantization_config": {"load": "x"},
        "torch_dtype": "float16",
    }
    for architectures in ("ViTForImageClassification", "BeitForImageClassification"):
        spec = infer(make({"architectures": [architectures], "model_type": "vit", **hostile}))
        assert not set(hostile) & set(spec.config)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 10**9), ("depths", [2] * 1000), ("hidden_sizes", [[1]]), ("hidden_act", "x" * 1000),
     ("layer_norm_eps", float("nan")), ("patch_size", {"a": 1}), ("backbone_config", [1]), ("num_queries", -(10**9))],
)  # fmt: skip
def test_values_that_would_eat_memory_are_refused(key: str, value: Any) -> None:
    config = {key: value}
    architecture = next(name for name, keys in CONFIG_KEYS.items() if key in keys)
    with pytest.raises(BadWeights, match=rf"config.json: {key}"):
        allowed_config(config, architecture, HERE)


def test_labels() -> None:
    assert labels_of({"label2id": {"cat": 0, "dog": 1}}, HERE) == (("cat", "dog"), 2)
    assert labels_of({"num_labels": 3}, HERE) == (("label 0", "label 1", "label 2"), 3)
    assert labels_of({"id2label": {5: "x"}}, HERE) == (("", "", "", "", "", "x"), 1)
    for table in ({"a": "b"}, [1], "x", {"-1": "a"}, {"999999999": "a"}):
        with pytest.raises(BadWeights):
            labels_of({"id2label": table}, HERE)
    for count in (0, -1, 10**9, "2", None):
        with pytest.raises(BadWeights):
            labels_of({"num_labels": count}, HERE)


def test_mirrored_pairs() -> None:
    assert mirrored_pairs(["Left-arm", "Right-arm", "left_leg", "right_leg"]) == ((0, 1), (2, 3))
    assert mirrored_pairs(["eye l", "eye r", "LeftShoe", "RightShoe"]) == ((0, 1), (2, 3))
    # negative controls: letters inside words, and halves whose other half does not exist
    assert (
        mirrored_pairs(["l_lip", "u_lip", "ear_r", "neck_l", "bolt", "bort", "left sock", "cleft", "", "l", "x"]) == ()
    )
    assert mirrored_pairs(["bright", "bleft"]) == ((1, 0),)


def test_files_are_found(make: Any) -> None:
    config = {"model_type": "vit", "problem_type": "multi_label_classification"}
    spec = infer(make(config, model_dot_safetensors=b"123", onnx__model_dot_onnx=b"4567"))
    assert spec.weights is not None
    assert (spec.weights.path, spec.weights.size) == ("model.safetensors", 3)
    assert spec.onnx is not None
    assert (spec.onnx.path, spec.onnx.size) == ("onnx/model.onnx", 4)
    assert spec.multi_label
    assert weights_among(["a.safetensors"]) == "a.safetensors"
    assert weights_among(["a.safetensors", "b.safetensors"]) is None
    assert onnx_among(["onnx/a_quantized.onnx", "onnx/b.onnx"]) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '{"a": NaN', "[" * 100_000, "\xff\xfe"])
def test_broken_configurations_are_one_sentence(make: Any, text: str) -> None:
    with pytest.raises((BadWeights, UnknownModel)) as caught:
        infer(make(text))
    assert "\n" not in str(caught.value)


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"holds no config.json"):
        infer(tmp_path)


def test_links_out_of_a_folder_are_refused(make: Any, tmp_path: Path) -> None:
    folder = make({"model_type": "vit"})
    outside = tmp_path.parent / f"{tmp_path.name}-secret.json"
    outside.write_text('{"model_type": "vit"}')
    try:
        (folder / "preprocessor_config.json").symlink_to(outside)
        with pytest.raises(BadWeights, match="link out of its folder"):
            infer(folder)
    finally:
        outside.unlink()


PAYLOADS: list[object] = [
    *("..", "../x", "a/../x", "/x", "//x", "a//b", "", ".", "./x", "a\\b", "..\\x", "C:x", "C:/x", "x\0", "x\n", "..."),
    *(".. /x", "a/.", "x.", "x ", "a|b", "a" * 300, "a/" * 400, "%2e%2e\\x", "\u202e\x07", None, 3, ["x"]),
]


@pytest.mark.parametrize("name", PAYLOADS)
def test_names_that_lead_elsewhere(name: object, tmp_path: Path) -> None:
    with pytest.raises(BadWeights):
        safe_name(name)


@given(st.text(max_size=40))
def test_accepted_names_stay_inside(name: str) -> None:
    root = Path("/some/root")
    try:
        path = inside(root, name)
    except BadWeights:
        return
    assert path.resolve().is_relative_to(root.resolve())
    assert path != root
