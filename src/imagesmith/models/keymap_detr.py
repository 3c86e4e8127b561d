"""What published files call the weights of DETR, as (published, native) name templates (see `keymap.KeyMap`).

Three layouts exist: a backbone named after timm (`conv1`, `layer1.0.bn1`), one named after transformers' ResNet
(`embedder`, `encoder.stages`), and either of them as transformers 5 holds it in memory. The transformer's names
differ only in small things. The first style of a backbone is the one to write files in.
"""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]

_FILE, _MEMORY = "model.backbone.conv_encoder.model", "model.backbone.model"

_TRANSFORMER: Pairs = (
    ("model.encoder.layers.{i}.self_attn.out_proj.{p}", "encoder.{i}.self_attn.o_proj.{p}"),
    ("model.encoder.layers.{i}.fc1.{p}", "encoder.{i}.mlp.fc1.{p}"),
    ("model.encoder.layers.{i}.fc2.{p}", "encoder.{i}.mlp.fc2.{p}"),
    ("model.encoder.layers.{i}.{rest}", "encoder.{i}.{rest}"),
    ("model.decoder.layers.{i}.self_attn.out_proj.{p}", "decoder.layers.{i}.self_attn.o_proj.{p}"),
    ("model.decoder.layers.{i}.encoder_attn.out_proj.{p}", "decoder.layers.{i}.encoder_attn.o_proj.{p}"),
    ("model.decoder.layers.{i}.fc1.{p}", "decoder.layers.{i}.mlp.fc1.{p}"),
    ("model.decoder.layers.{i}.fc2.{p}", "decoder.layers.{i}.mlp.fc2.{p}"),
    ("model.decoder.layers.{i}.{rest}", "decoder.layers.{i}.{rest}"),
    ("model.decoder.layernorm.{p}", "decoder.layernorm.{p}"),
    ("model.input_projection.{p}", "input_projection.{p}"),
    ("model.query_position_embeddings.{p}", "query_position_embeddings.{p}"),
    ("model.position_embedding.{rest}", "position_embedding.{rest}"),
    ("model.backbone.position_embedding.{rest}", "position_embedding.{rest}"),
)


def _transformers_backbone(prefix: str) -> Pairs:
    block = prefix + ".encoder.stages.{i}.layers.{j}"
    return (
        (prefix + ".embedder.embedder.convolution.{p}", "backbone.stem_conv.{p}"),
        (prefix + ".embedder.embedder.normalization.{p}", "backbone.stem_norm.{p}"),
        (block + ".layer.{k}.convolution.{p}", "backbone.stages.{i}.{j}.convs.{k}.{p}"),
        (block + ".layer.{k}.normalization.{p}", "backbone.stages.{i}.{j}.norms.{k}.{p}"),
        (block + ".shortcut.convolution.{p}", "backbone.stages.{i}.{j}.shortcut_conv.{p}"),
        (block + ".shortcut.normalization.{p}", "backbone.stages.{i}.{j}.shortcut_norm.{p}"),
    )


def _timm_backbone(prefix: str) -> Pairs:
    """List the names after timm, which counts stages, convolutions and norms from 1."""
    pairs = [(prefix + ".conv1.{p}", "backbone.stem_conv.{p}"), (prefix + ".bn1.{p}", "backbone.stem_norm.{p}")]
    for stage in range(4):
        theirs, ours = f"{prefix}.layer{stage + 1}.{{j}}", f"backbone.stages.{stage}.{{j}}"
        for index in range(3):
            pairs.append((f"{theirs}.conv{index + 1}.{{p}}", f"{ours}.convs.{index}.{{p}}"))
            pairs.append((f"{theirs}.bn{index + 1}.{{p}}", f"{ours}.norms.{index}.{{p}}"))
        pairs.append((f"{theirs}.downsample.0.{{p}}", f"{ours}.shortcut_conv.{{p}}"))
        pairs.append((f"{theirs}.downsample.1.{{p}}", f"{ours}.shortcut_norm.{{p}}"))
    return tuple(pairs)


DETR_STYLES: dict[str, Pairs] = {
    "detr with transformers' ResNet": _transformers_backbone(_FILE) + _TRANSFORMER,
    "detr with timm's ResNet": _timm_backbone(_FILE) + _TRANSFORMER,
    "detr with transformers' ResNet (what transformers 5 holds in memory)": _transformers_backbone(_MEMORY),
    "detr with timm's ResNet (what transformers 5 holds in memory)": _timm_backbone(_MEMORY),
}
"""Name of each published style of DETR and its templates; the in-memory names of the transformer are covered too."""
