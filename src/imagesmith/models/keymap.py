"""Names of weights as data: what each library calls a tensor, and what our modules call it, both ways.

A name is written as a template: `{i}` and `{j}` stand for numbers, `{p}` for the last part (weight, bias,
running_mean ...), `{rest}` for everything that follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from imagesmith.core.errors import BadWeights
from imagesmith.models.keymap_detr import DETR_STYLES

T = TypeVar("T")

_FIELD = re.compile(r"\{(\w+)\}")
_PATTERNS = {"p": r"[A-Za-z_]\w*", "rest": r".+"}


def _compile(template: str) -> re.Pattern[str]:
    parts = _FIELD.split(template)
    pieces = [
        f"(?P<{part}>{_PATTERNS.get(part, '[0-9]+')})" if index % 2 else re.escape(part)
        for index, part in enumerate(parts)
    ]
    return re.compile("".join(pieces))


@dataclass(frozen=True)
class KeyMap:
    """Rename weights between one published style and our modules; `pairs` are (published, native) templates.

    >>> styles = KeyMap("new", (("blocks.{i}.fc1.{p}", "layer.{i}.dense.{p}"),))
    >>> styles.to_native("blocks.3.fc1.weight"), styles.from_native("layer.3.dense.weight")
    ('layer.3.dense.weight', 'blocks.3.fc1.weight')
    >>> styles.to_native("head.weight") is None
    True
    """

    name: str
    pairs: tuple[tuple[str, str], ...]

    @cached_property
    def _forward(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_compile(published), native) for published, native in self.pairs]

    @cached_property
    def _backward(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_compile(native), published) for published, native in self.pairs]

    def to_native(self, key: str) -> str | None:
        """Return our name of a published weight, or None where this style has no such name."""
        return _rename(key, self._forward)

    def from_native(self, key: str) -> str | None:
        """Return the published name of one of our weights, or None where it is the same in both."""
        return _rename(key, self._backward)


def _rename(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        if found := pattern.fullmatch(key):
            return template.format(**found.groupdict())
    return None


VIT_STACKED = KeyMap(
    "vit with stacked layers (what transformers 5 holds in memory)",
    (
        ("vit.layers.{i}.attention.q_proj.{p}", "vit.encoder.layer.{i}.attention.attention.query.{p}"),
        ("vit.layers.{i}.attention.k_proj.{p}", "vit.encoder.layer.{i}.attention.attention.key.{p}"),
        ("vit.layers.{i}.attention.v_proj.{p}", "vit.encoder.layer.{i}.attention.attention.value.{p}"),
        ("vit.layers.{i}.attention.o_proj.{p}", "vit.encoder.layer.{i}.attention.output.dense.{p}"),
        ("vit.layers.{i}.layernorm_before.{p}", "vit.encoder.layer.{i}.layernorm_before.{p}"),
        ("vit.layers.{i}.layernorm_after.{p}", "vit.encoder.layer.{i}.layernorm_after.{p}"),
        ("vit.layers.{i}.mlp.fc1.{p}", "vit.encoder.layer.{i}.intermediate.dense.{p}"),
        ("vit.layers.{i}.mlp.fc2.{p}", "vit.encoder.layer.{i}.output.dense.{p}"),
    ),
)

VIT_BARE = KeyMap(
    "vit without its head (a feature extractor)",
    (
        ("embeddings.{rest}", "vit.embeddings.{rest}"),
        ("encoder.{rest}", "vit.encoder.{rest}"),
        ("layernorm.{p}", "vit.layernorm.{p}"),
        ("pooler.{rest}", "vit.pooler.{rest}"),
    ),
)

_STAGE, _BLOCK = "segformer.stages.{i}", "segformer.encoder.block.{i}.{j}"
SEGFORMER_STAGES = KeyMap(
    "segformer by stages (what transformers 5 holds in memory)",
    (
        (_STAGE + ".patch_embeddings.{rest}", "segformer.encoder.patch_embeddings.{i}.{rest}"),
        (_STAGE + ".layer_norm.{p}", "segformer.encoder.layer_norm.{i}.{p}"),
        (_STAGE + ".blocks.{j}.attention.q_proj.{p}", _BLOCK + ".attention.self.query.{p}"),
        (_STAGE + ".blocks.{j}.attention.k_proj.{p}", _BLOCK + ".attention.self.key.{p}"),
        (_STAGE + ".blocks.{j}.attention.v_proj.{p}", _BLOCK + ".attention.self.value.{p}"),
        (_STAGE + ".blocks.{j}.attention.o_proj.{p}", _BLOCK + ".attention.output.dense.{p}"),
        (_STAGE + ".blocks.{j}.attention.sequence_reduction.sequence_reduction.{p}", _BLOCK + ".attention.self.sr.{p}"),
        (_STAGE + ".blocks.{j}.attention.sequence_reduction.layer_norm.{p}", _BLOCK + ".attention.self.layer_norm.{p}"),
        (_STAGE + ".blocks.{j}.layernorm_before.{p}", _BLOCK + ".layer_norm_1.{p}"),
        (_STAGE + ".blocks.{j}.layernorm_after.{p}", _BLOCK + ".layer_norm_2.{p}"),
        (_STAGE + ".blocks.{j}.mlp.fc1.{p}", _BLOCK + ".mlp.dense1.{p}"),
        (_STAGE + ".blocks.{j}.mlp.fc2.{p}", _BLOCK + ".mlp.dense2.{p}"),
        (_STAGE + ".blocks.{j}.mlp.dwconv.{rest}", _BLOCK + ".mlp.dwconv.{rest}"),
        ("decode_head.linear_projections.{i}.proj.{p}", "decode_head.linear_c.{i}.proj.{p}"),
    ),
)

SEGFORMER_BARE = KeyMap(
    "segformer without its head (a feature extractor)",
    (("encoder.{rest}", "segformer.encoder.{rest}"),),
)

KEYMAPS: dict[str, tuple[KeyMap, ...]] = {
    "vit": (VIT_STACKED, VIT_BARE),
    "segformer": (SEGFORMER_STAGES, SEGFORMER_BARE),
    "detr": tuple(KeyMap(name, pairs) for name, pairs in DETR_STYLES.items()),
}
"""The published styles of each architecture, beside our own names (which are the classic ones of the hub)."""

WRITTEN: dict[str, KeyMap] = {"detr": KEYMAPS["detr"][0]}
"""The style to write files in, where our own names are not the ones other readers know."""

WRAPPERS = ("module.", "_orig_mod.", "network.")
"""Prefixes that a data-parallel, compiled or training wrapper puts before every name."""


def to_native(architecture: str, key: str) -> str:
    """Return our name of a weight of `architecture`; a name no style knows comes back as it is.

    >>> to_native("vit", "vit.layers.0.mlp.fc1.bias")
    'vit.encoder.layer.0.intermediate.dense.bias'
    """
    for prefix in WRAPPERS:
        key = key.removeprefix(prefix)
    for keymap in KEYMAPS.get(architecture, ()):
        renamed = keymap.to_native(key)
        if renamed is not None:
            return renamed
    return key


def native_state(architecture: str, state: Mapping[str, T]) -> dict[str, T]:
    """Rename a whole state to our names; raises `BadWeights` where two weights would get the same one."""
    renamed: dict[str, T] = {}
    for key in state:
        name = to_native(architecture, key)
        if name in renamed:
            raise BadWeights(f'Two weights of this file are both "{name}"; use a file with one set of weights.')
        renamed[name] = state[key]
    return renamed


def published_state(architecture: str, state: Mapping[str, T]) -> dict[str, T]:
    """Rename a whole state from our names to those that files of this architecture are written with.

    >>> list(published_state("detr", {"input_projection.bias": 0}))
    ['model.input_projection.bias']
    """
    style = WRITTEN.get(architecture)
    return dict(state) if style is None else {style.from_native(key) or key: value for key, value in state.items()}


@dataclass(frozen=True)
class KeyReport:
    """What does not fit between the weights a module has and those a file holds."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    """Present in both with different shapes, each as "name (3, 4) instead of (3, 5)"."""

    @property
    def fits(self) -> bool:
        """Tell whether every weight is there in its shape; what a file holds beyond that does no harm."""
        return not self.missing and not self.mismatched

    def sentence(self, what: str) -> str:
        """Say in one sentence what is wrong with `what`.

        >>> KeyReport(("head.bias",), (), ()).sentence("model.safetensors")
        'model.safetensors does not fit this network: 1 weight is missing (head.bias).'
        """
        kinds = (
            (self.missing, "missing"),
            (self.unexpected, "unknown"),
            (self.mismatched, "of another shape"),
        )
        parts = [
            f"{len(keys)} {'weight is' if len(keys) == 1 else 'weights are'} {kind} ({_some(keys)})"
            for keys, kind in kinds
            if keys
        ]
        if not parts:
            return f"{what} fits this network."
        return f"{what} does not fit this network: {', '.join(parts)}."


def _some(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


HARMLESS = ("num_batches_tracked", "position_ids", "vit.pooler.")
"""Parts of names that a file may lack or hold beside the network's own weights: counters, indices, an unused pooler."""


def compare_keys(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], ignore: Iterable[str] = HARMLESS
) -> KeyReport:
    """Compare the shapes a module expects with those a file holds, both by our names."""
    silent = tuple(ignore)

    def matters(name: str) -> bool:
        return not any(part in name for part in silent)

    return KeyReport(
        missing=tuple(name for name in expected if name not in found and matters(name)),
        unexpected=tuple(name for name in found if name not in expected and matters(name)),
        mismatched=tuple(
            f"{name} {tuple(found[name])} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ),
    )
