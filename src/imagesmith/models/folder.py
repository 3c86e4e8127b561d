"""A folder with a model in it becomes a `ModelSpec`: architecture, labels and preprocessing are read from its files.

Only keys named here are taken from a configuration: no key of a stranger's file reaches code that was not written
for it, and nothing a folder holds is ever imported or run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imagesmith.core.errors import BadWeights, UnknownModel
from imagesmith.core.specs import ModelFile, ModelSpec, Preprocessing, Task
from imagesmith.models.preprocessor import preprocessing_from
from imagesmith.models.safe import inside, read_json, sha256_of

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SUMS = "SHA256SUMS"
LARGEST = 65_536
"""Largest width, depth or count a configuration may ask for: more is an attack on memory, not a network."""
MOST_LABELS = 100_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RESNET = _words(
    "model_type num_channels embedding_size hidden_sizes depths layer_type hidden_act downsample_in_first_stage "
    "downsample_in_bottleneck dilated_last_stage batch_norm out_features out_indices backbone output_stride"
)
CONFIG_KEYS: dict[str, frozenset[str]] = {
    "segformer": _words(
        "model_type num_labels num_channels hidden_sizes depths sr_ratios patch_sizes strides mlp_ratios "
        "num_attention_heads decoder_hidden_size hidden_act hidden_dropout_prob attention_probs_dropout_prob "
        "classifier_dropout_prob drop_path_rate"
    ),
    "vit": _words(
        "model_type num_labels num_channels image_size patch_size hidden_size num_hidden_layers num_attention_heads "
        "intermediate_size hidden_act layer_norm_eps qkv_bias hidden_dropout_prob attention_probs_dropout_prob "
        "drop_path_rate problem_type"
    ),
    "detr": _words(
        "model_type num_labels num_channels num_queries query_groups d_model encoder_layers encoder_attention_heads "
        "encoder_ffn_dim decoder_layers decoder_attention_heads decoder_ffn_dim dropout attention_dropout "
        "activation_dropout activation_function position_embedding_type backbone backbone_config dilation "
        "use_timm_backbone use_pretrained_backbone"
    ),
    "transformers": _words("model_type num_labels architectures problem_type"),
}
"""What is read from a config.json, by architecture; every other key is left where it is."""

NATIVE: dict[str, tuple[str, Task]] = {
    "SegformerForSemanticSegmentation": ("segformer", "segment"),
    "ViTForImageClassification": ("vit", "classify"),
    "DetrForObjectDetection": ("detr", "detect"),
}
_TASK_ENDINGS: tuple[tuple[str, Task], ...] = (
    ("ForSemanticSegmentation", "segment"),
    ("ForUniversalSegmentation", "segment"),
    ("ForImageClassification", "classify"),
    ("ForObjectDetection", "detect"),
)


def infer(
    folder: Path,
    *,
    name: str | None = None,
    source: str | None = None,
    revision: str | None = None,
    license: str | None = None,
) -> ModelSpec:
    """Make a `ModelSpec` from a local folder or hub snapshot by reading its configuration files.

    `name` and `source` default to the folder itself. Weights need not be there yet. Raises `UnknownModel` where
    there is no configuration or a network of another task, `BadWeights` where a file is damaged or hostile.
    """
    path = inside(folder, CONFIG)
    if not path.is_file():
        raise UnknownModel(
            f"{folder} holds no {CONFIG}; give a folder with {CONFIG}, {PREPROCESSOR} and the weights of one model."
        )
    config = read_json(path)
    architecture, task = architecture_of(config, folder)
    labels, count = labels_of(config, path)
    files = names_in(folder)
    sums = read_sums(folder)
    weights, onnx = weights_among(files) or pickle_among(files), onnx_among(files)
    return ModelSpec(
        name=name or str(folder),
        task=task,
        architecture=architecture,
        source=source or f"folder:{folder.resolve()}",
        revision=revision,
        weights=_model_file(folder, weights, sums),
        onnx=_model_file(folder, onnx, sums),
        config=allowed_config(config, architecture, path) | {"num_labels": count},
        preprocessing=_preprocessing(folder, architecture, config),
        labels=labels,
        mirrored=mirrored_pairs(labels),
        multi_label=config.get("problem_type") == "multi_label_classification",
        license=license or "unknown",
    )


def _preprocessing(folder: Path, architecture: str, config: Mapping[str, Any]) -> Preprocessing:
    path = inside(folder, PREPROCESSOR)
    values = read_json(path) if path.is_file() else {}
    return preprocessing_from(values, architecture, config.get("image_size"), path)


def architecture_of(config: Mapping[str, Any], where: object) -> tuple[Any, Task]:
    """Tell architecture and task from a config.json; any network without a native module goes the general path.

    >>> architecture_of({"architectures": ["SegformerForSemanticSegmentation"]}, "here")
    ('segformer', 'segment')
    >>> architecture_of({"architectures": ["BeitForImageClassification"], "model_type": "beit"}, "here")
    ('transformers', 'classify')
    """
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    for name in names:
        if name in NATIVE:
            return NATIVE[name]
    for name in names:
        for ending, task in _TASK_ENDINGS:
            if name.endswith(ending):
                return "transformers", task
    model_type = config.get("model_type")
    if not names:
        # Configurations written by hand often name only the model type.
        for architecture, task in NATIVE.values():
            if model_type == architecture:
                return architecture, task
    found = names[0] if names else model_type or "a network without a name"
    raise UnknownModel(
        f"{where} holds {str(found)[:80]}, which neither segments, classifies nor detects in images; "
        "give a model of one of these tasks."
    )


def allowed_config(config: Mapping[str, Any], architecture: str, where: Path) -> dict[str, Any]:
    """Return the allow-listed part of a config.json, its values checked; null and unknown keys are left out."""
    kept: dict[str, Any] = {}
    for key in sorted(CONFIG_KEYS[architecture] & config.keys()):
        value = config[key]
        if value is None:
            continue
        if key == "backbone_config":
            if not isinstance(value, dict):
                raise BadWeights(f"{where}: backbone_config must be an object, got {type(value).__name__}; correct it.")
            known = {name: value[name] for name in sorted(_RESNET & value.keys()) if value[name] is not None}
            kept[key] = {name: _checked(name, item, where) for name, item in known.items()}
        else:
            kept[key] = _checked(key, value, where)
    return kept


def _checked(key: str, value: Any, where: Path) -> Any:
    if isinstance(value, list):
        if len(value) <= 256 and not any(isinstance(item, list) for item in value):
            return [_checked(key, item, where) for item in value]
    elif isinstance(value, str):
        if len(value) <= 200:
            return value
    elif isinstance(value, int | float) and math.isfinite(value) and abs(value) <= LARGEST:
        return value
    raise BadWeights(
        f"{where}: {key} has the value {str(value)[:60]!r}, but a name, a number up to {LARGEST} or a short list "
        "of them is expected; correct it."
    )


def labels_of(config: Mapping[str, Any], where: Path) -> tuple[tuple[str, ...], int]:
    """Return the label of every output index ("" where an id is left out or says N/A), and how many outputs there are.

    The count is that of the entries, as `transformers` has it: with gaps it is less than the highest id plus one.

    >>> labels_of({"id2label": {"0": "N/A", "3": "cat", "1": "dog "}}, Path("config.json"))
    (('', 'dog', '', 'cat'), 3)
    """
    table = config.get("id2label")
    if not table and isinstance(config.get("label2id"), dict):
        table = {number: label for label, number in config["label2id"].items()}
    if not table:
        count = config.get("num_labels", 2)
        if not isinstance(count, int) or not 0 < count <= MOST_LABELS:
            raise BadWeights(f"{where}: num_labels is {str(count)[:40]!r}, but a positive number is expected.")
        return tuple(f"label {index}" for index in range(count)), count
    names = _label_table(table, where)
    labels = [""] * max(max(names) + 1, len(names))
    for index, label in names.items():
        labels[index] = "" if label in ("N/A", "n/a") else label
    return tuple(labels), len(names)


def _label_table(table: Any, where: Path) -> dict[int, str]:
    try:
        names = {int(index): str(label).strip()[:200] for index, label in table.items()}
    except (AttributeError, TypeError, ValueError):
        raise BadWeights(f"{where}: id2label must map numbers to names; correct it.") from None
    if min(names) < 0 or max(names) >= MOST_LABELS:
        raise BadWeights(f"{where}: label ids must lie between 0 and {MOST_LABELS - 1}; correct id2label.")
    return names


def mirrored_pairs(labels: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Find the labels that trade places in a mirror, by their names: left and right, or l and r as a word.

    A name whose counterpart does not exist has no pair: CelebAMask's l_lip is the lower lip, ear_r an earring.

    >>> mirrored_pairs(("hair", "Left-shoe", "Right-shoe", "l_eye", "r_eye", "l_lip", "ear_r"))
    ((1, 2), (3, 4))
    """
    index = {label.casefold(): number for number, label in enumerate(labels) if label}
    pairs = []
    for label, number in index.items():
        for pattern, other in ((r"left", "right"), (r"(?<![a-z])l(?![a-z])", "r")):
            partner = index.get(re.sub(pattern, other, label, count=1))
            if partner is not None and partner != number:
                pairs.append((number, partner))
                break
    return tuple(sorted(pairs))


def names_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder and in its folder onnx/; empty where there is no such folder."""
    found = (path for pattern in ("*", "onnx/*") for path in folder.glob(pattern) if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def weights_among(names: Iterable[str]) -> str | None:
    """Choose the safetensors weights among file names: model.safetensors, its index, or the only one there is.

    >>> weights_among(["config.json", "model.safetensors", "pytorch_model.bin"])
    'model.safetensors'
    """
    top = [name for name in names if "/" not in name]
    for name in (WEIGHTS, INDEX):
        if name in top:
            return name
    tensors = [name for name in top if name.endswith(".safetensors")]
    return tensors[0] if len(tensors) == 1 else None


def pickle_among(names: Iterable[str]) -> str | None:
    """Choose the pickled weights, which are only ever read where a person allows it."""
    return next((name for name in names if name == "pytorch_model.bin"), None)


def onnx_among(names: Iterable[str]) -> str | None:
    """Choose the full-precision ONNX file among file names.

    >>> onnx_among(["onnx/model_quantized.onnx", "onnx/model.onnx"])
    'onnx/model.onnx'
    """
    found = [name for name in names if name.endswith(".onnx")]
    for name in ("model.onnx", "onnx/model.onnx"):
        if name in found:
            return name
    return found[0] if len(found) == 1 else None


def read_sums(folder: Path) -> dict[str, str]:
    """Read a folder's SHA256SUMS (lines of "hex  name", as sha256sum writes them); empty where there is none."""
    path = inside(folder, SUMS)
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:1000]
    found = (re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line.strip()) for line in lines)
    return {match[2]: match[1] for match in found if match}


def write_sums(folder: Path) -> Path:
    """Write a folder's SHA256SUMS over its configuration, weights and ONNX file, and return its path."""
    names = names_in(folder)
    chosen = (CONFIG, PREPROCESSOR, weights_among(names), onnx_among(names))
    lines = [f"{sha256_of(inside(folder, name))}  {name}" for name in chosen if name in names]
    path = folder / SUMS
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _model_file(folder: Path, name: str | None, sums: Mapping[str, str]) -> ModelFile | None:
    if name is None:
        return None
    path = inside(folder, name)
    return ModelFile(path=name, sha256=sums.get(name), size=path.stat().st_size if path.is_file() else None)
