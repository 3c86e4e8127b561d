"""Turn a model into an ONNX file or an OpenVINO model, and write it only if it answers as PyTorch does."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from imagesmith.core.errors import BadInput, EngineFailed, MissingExtra
from imagesmith.core.protocols import Array
from imagesmith.core.specs import ModelSpec
from imagesmith.engines.torch import build_native
from imagesmith.exporting.graph import halve_weights
from imagesmith.exporting.parity import ParityReport, check_inputs, compare
from imagesmith.models.checkpoint import shard_names
from imagesmith.models.safe import sha256_of

Kind = Literal["onnx", "openvino"]

OPSET = 17
OUTPUTS: dict[str, dict[str, dict[int, str]]] = {
    "segment": {"logits": {0: "batch", 2: "logits_height", 3: "logits_width"}},
    "classify": {"logits": {0: "batch"}},
    "detect": {"logits": {0: "batch"}, "pred_boxes": {0: "batch"}},
}
"""Outputs of a task's network and their free dimensions."""
INPUT_DIMENSIONS = {0: "batch", 2: "height", 3: "width"}


class Plain(nn.Module):
    """Wrap a network so that it takes and returns plain tensors, in the order of the task's outputs."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = self.module(pixel_values)
        values = tuple(outputs[name] for name in self.names)
        return values[0] if len(values) == 1 else values


def inference_module(spec: ModelSpec, weights: Path, *, half: bool = False, allow_pickle: bool = False) -> nn.Module:
    """Build the folded module an export is made of; `half` rounds its matrices to float16, still computing in float32.

    Vectors (biases, norms) stay as they are: they weigh little. Weights that were stored in float16 do not change.
    """
    if spec.architecture == "transformers":
        raise BadInput(
            f'"{spec.name}" is no SegFormer, ViT or DETR, and only those are exported; use --engine torch for it.'
        )
    module = build_native(spec, weights, allow_pickle=allow_pickle)
    if half:
        with torch.no_grad():
            for tensor in module.parameters():
                if tensor.dim() > 1:
                    tensor.copy_(tensor.half().float())
        if spec.architecture == "detr":
            # Folded into convolutions, batch norm would turn weights stored in float16 into ones that need float32;
            # engines fold it when they load the file.
            return module.requires_grad_(False)
    folded: nn.Module = module.for_inference()
    return folded


def check_sizes(spec: ModelSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return two input sizes (height, width) to compare at; the first, cheap and not square, is the traced one."""
    if spec.architecture == "vit":
        side, patch = (spec.config.get(name, default) for name, default in (("image_size", 224), ("patch_size", 16)))
        sides, patches = ((size, size) if isinstance(size, int) else tuple(size) for size in (side, patch))
        return (4 * patches[0], 6 * patches[1]), (sides[0], sides[1])
    return (96, 128), (160, 96)


def export_onnx(
    spec: ModelSpec, weights: Path, out: Path, *, half: bool = False, allow_pickle: bool = False
) -> ParityReport:
    """Write a model as one ONNX file with free batch, height and width, and return how near it is to PyTorch.

    SegFormer's decode head is folded into constants. With `half` matrices are stored as float16 and widened when
    the file is loaded: half the size, computed in float32. The file appears under its name only when it passed:
    every output within 1e-4 of its scale. Raises `EngineFailed` otherwise, `MissingExtra` without onnxruntime.
    """
    module = inference_module(spec, weights, half=half, allow_pickle=allow_pickle)
    graph = _trace_onnx(module, spec, fold_norms=not half)
    with _aside(out) as path:
        path.write_bytes(halve_weights(graph) if half else graph)
        report = compare(module, OnnxRunner(path), check_inputs(check_sizes(spec)))
        report.require(f"The ONNX export of {spec.name}")
    return report


def export_openvino(spec: ModelSpec, weights: Path, out: Path, *, allow_pickle: bool = False) -> ParityReport:
    """Write a model as OpenVINO IR (`out` ends in .xml, the weights lie beside it as .bin), checked like ONNX.

    Raises `EngineFailed` where it differs from PyTorch, `MissingExtra` without openvino.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtra("Converting to OpenVINO", "cpu") from None
    module = inference_module(spec, weights, allow_pickle=allow_pickle)
    names = tuple(OUTPUTS[spec.task])
    sizes = check_sizes(spec)
    with _quiet():
        model = openvino.convert_model(
            Plain(module, names).eval(),
            example_input=torch.zeros(2, 3, *sizes[0]),
            input=[("pixel_values", openvino.PartialShape([-1, 3, -1, -1]))],
        )
    for output, name in zip(model.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(values: Array) -> dict[str, Array]:
        result = compiled({"pixel_values": values})
        return {name: result[name] for name in names}

    report = compare(module, run, check_inputs(sizes))
    report.require(f"The OpenVINO conversion of {spec.name}")
    with _aside(out.with_suffix(".bin")) as weights_path:
        xml = weights_path.with_suffix(".xml")
        openvino.save_model(model, xml, compress_to_fp16=False)
        # The weights come first: whoever finds the .xml finds them too.
        os.replace(weights_path, out.with_suffix(".bin"))
        os.replace(xml, out)
    return report


def convert(
    spec: ModelSpec, weights: Path, kind: str, *, cache: Path | None = None, allow_pickle: bool = False
) -> Path:
    """Return the model in another engine's format, converting it the first time.

    `kind` is "onnx" (one file) or "openvino" (the .xml, its .bin beside it). Results are kept in the user's cache
    folder, keyed by the sha256 of the weights, the configuration and this package's version.
    """
    if kind not in ("onnx", "openvino"):
        raise BadInput(f'A model converts to onnx or openvino, not to "{kind}".')
    key = conversion_key(spec, weights)
    out = (cache or cache_folder()) / "converted" / key / ("model.onnx" if kind == "onnx" else "model.xml")
    if not out.is_file():
        export = export_onnx if kind == "onnx" else export_openvino
        export(spec, weights, out, allow_pickle=allow_pickle)
    return out


def conversion_key(spec: ModelSpec, weights: Path) -> str:
    """Return what a conversion depends on, as a folder name: weights, configuration, versions."""
    parts = {
        "weights": sha256_of(weights),
        "shards": {name.name: sha256_of(name) for name in _shards_beside(weights)},
        "architecture": spec.architecture,
        "labels": len(spec.labels),
        "config": spec.config,
        "imagesmith": metadata.version("imagesmith"),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{spec.architecture}-{digest[:24]}"


def _shards_beside(weights: Path) -> list[Path]:
    return [weights.parent / name for name in shard_names(weights)] if weights.suffix == ".json" else []


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the user's cache folder for this package: IMAGESMITH_CACHE, else the platform's place."""
    environ = os.environ if environ is None else environ
    if stated := environ.get("IMAGESMITH_CACHE"):
        return Path(stated).expanduser()
    if sys.platform == "win32" and (local := environ.get("LOCALAPPDATA")):
        return Path(local) / "imagesmith"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/imagesmith").expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "imagesmith"


def _trace_onnx(module: nn.Module, spec: ModelSpec, fold_norms: bool) -> bytes:
    names = tuple(OUTPUTS[spec.task])
    buffer = io.BytesIO()
    example = torch.zeros(2, 3, *check_sizes(spec)[0])
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(
            Plain(module, names).eval(),
            (example,),
            buffer,
            dynamo=False,
            training=torch.onnx.TrainingMode.EVAL if fold_norms else torch.onnx.TrainingMode.PRESERVE,
            opset_version=OPSET,
            input_names=["pixel_values"],
            output_names=list(names),
            dynamic_axes={"pixel_values": INPUT_DIMENSIONS, **OUTPUTS[spec.task]},
        )
    return buffer.getvalue()


class OnnxRunner:
    """Run an ONNX file on the processor, for comparing."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("Checking an ONNX export", "cpu") from None
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, values: Array) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, {"pixel_values": values}), strict=True))


@contextlib.contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder beside `out`; if what is there at the end, rename it to `out`."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".converting-", dir=out.parent))
    except OSError as error:
        raise EngineFailed(f"{out.parent} cannot be written ({error.strerror}); choose another folder.") from None
    try:
        path = folder / out.name
        yield path
        if path.exists():
            os.replace(path, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what tracing says about shapes that become constants; the comparison at two sizes judges them."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
