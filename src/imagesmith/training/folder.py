"""The result of a training: a model folder like any other, readable by this toolkit and by transformers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from imagesmith.models.keymap import native_state, published_state
from imagesmith.models.preprocessor import preprocessor_config
from imagesmith.training.recipe import VisionRecipe, dump_recipe


def label_names(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the two tables a config.json names labels with.

    >>> label_names(["a"])
    {'id2label': {'0': 'a'}, 'label2id': {'a': 0}}
    """
    return {
        "id2label": {str(index): name for index, name in enumerate(labels)},
        "label2id": {name: index for index, name in enumerate(labels)},
    }


def write_model_folder(
    folder: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    recipe: VisionRecipe,
    metrics: Mapping[str, Any],
) -> None:
    """Write config.json, preprocessor_config.json, model.safetensors, recipe.yaml and metrics.json, all or nothing.

    The weights are stored in the recipe's dtype; an existing folder is replaced only once the new one is whole.
    """
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    named = published_state(recipe.architecture, native_state(recipe.architecture, state))
    # Not save_file, which makes a file that only its owner can read.
    (aside / "model.safetensors").write_bytes(save(stored(named, recipe.weights_dtype), metadata={"format": "pt"}))
    files = {
        "config.json": _json({**config, "dtype": recipe.weights_dtype}),
        "preprocessor_config.json": _json(preprocessor_config(recipe.preprocessing, recipe.architecture)),
        "recipe.yaml": dump_recipe(recipe),
        "metrics.json": _json(metrics),
    }
    for name, text in files.items():
        (aside / name).write_text(text, encoding="utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(aside, folder)
    shutil.rmtree(old, ignore_errors=True)


def stored(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return contiguous copies of the tensors, floating ones in the dtype they are stored in."""
    target = getattr(torch, dtype)
    return {
        name: tensor.detach().cpu().to(target if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in state.items()
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
