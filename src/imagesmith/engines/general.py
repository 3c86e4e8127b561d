"""The general path: any network `transformers` can load, behind the same answers as the native ones.

No code of the model's folder runs: `trust_remote_code` stays off, weights are safetensors, and of the configuration
only plain values are handed on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagesmith.core.errors import BadWeights, MissingExtra
from imagesmith.core.specs import ModelSpec
from imagesmith.models.checkpoint import read_state
from imagesmith.models.safe import read_json

CLASSES: dict[str, tuple[str, ...]] = {
    "segment": ("AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"),
    "classify": ("AutoModelForImageClassification",),
    "detect": ("AutoModelForObjectDetection",),
}
REFUSED_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "quantization_config")
"""Keys of a configuration that name code or packages."""


def build_general(spec: ModelSpec, folder: Path) -> nn.Module:
    """Build a network of the general path from its folder: `config.json` and safetensors weights.

    Raises `MissingExtra` without transformers and `BadWeights` where it knows no such network or the files do not
    fit it.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtra(f'"{spec.name}", which is no SegFormer, ViT or DETR,', "torch") from None
    _check_weights(folder)
    values = plain_config(read_json(folder / "config.json"))
    model_type = values.pop("model_type", None)
    with _quiet():
        try:
            config = transformers.AutoConfig.for_model(model_type, **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unfit(spec, error) from None
        for name in CLASSES[spec.task]:
            kind = getattr(transformers, name)
            if type(config) in kind._model_mapping:
                return General(_load(kind, spec, folder, config), spec.task)
    raise BadWeights(f'"{spec.name}" is a {model_type}, which transformers cannot {spec.task} with; choose another.')


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys that could lead to code: private ones and those that name modules.

    >>> plain_config({"model_type": "x", "auto_map": {"AutoModel": "evil.py"}, "_attn": "e/vil", "sub": {"_a": 1}})
    {'model_type': 'x', 'sub': {}}
    """
    return {
        key: plain_config(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if not key.startswith("_") and key not in REFUSED_KEYS
    }


def _check_weights(folder: Path) -> None:
    """Check headers before transformers, whose own limits are wider, opens the files."""
    for name in ("model.safetensors", "model.safetensors.index.json"):
        if (folder / name).is_file():
            read_state(folder / name)
            return
    raise BadWeights(f"{folder} holds no model.safetensors; the general path loads no other kind of weights.")


def _load(kind: Any, spec: ModelSpec, folder: Path, config: Any) -> nn.Module:
    try:
        module, report = kind.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        raise _unfit(spec, error) from None
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise BadWeights(
            f'The weights of "{spec.name}" lack {len(missing)} of the network\'s, such as {missing[0]}; '
            "choose a file made for this task."
        )
    return module


def _unfit(spec: ModelSpec, error: Exception) -> BadWeights:
    reason = " ".join(str(error).split())[:200]
    return BadWeights(f'transformers cannot load "{spec.name}": {reason}')


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' remarks on loading to itself; what matters is raised."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class General(nn.Module):
    """Give a transformers network the answers of the native ones: `logits`, and `pred_boxes` for detection."""

    def __init__(self, network: nn.Module, task: str) -> None:
        super().__init__()
        self.network, self.task = network, task

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        outputs = self.network(pixel_values=pixel_values)
        if self.task == "detect":
            logits = outputs["logits"]
            if logits.shape[-1] == self.network.config.num_labels:
                logits = single_label_logits(logits)
            return {"logits": logits, "pred_boxes": outputs["pred_boxes"]}
        if "masks_queries_logits" in outputs:
            return {"logits": mask_logits(outputs["class_queries_logits"], outputs["masks_queries_logits"])}
        return {"logits": outputs["logits"]}


def single_label_logits(logits: Tensor) -> Tensor:
    """Turn per-class sigmoid logits [N,Q,C] into softmax logits [N,Q,C+1] with "no object" last.

    The best class keeps its probability exactly, the others get none: a query is one object.
    """
    best, label = logits.max(dim=-1, keepdim=True)
    softmax = torch.full_like(logits, -torch.inf).scatter(-1, label, nn.functional.logsigmoid(best))
    return torch.cat([softmax, nn.functional.logsigmoid(-best)], dim=-1)


def mask_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """Join mask classification (classes [N,Q,C+1], masks [N,Q,h,w]) into logits per pixel [N,C,h,w]."""
    scores = torch.einsum("nqc,nqhw->nchw", classes.softmax(dim=-1)[..., :-1], masks.sigmoid())
    return scores.clamp(min=1e-12).log()
