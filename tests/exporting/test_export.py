"""Exports answer as PyTorch does at sizes, shapes and batches they were not traced at, and bad ones are not written."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from safetensors.torch import save_file  # noqa: E402

from imagesmith.core.errors import BadInput, EngineFailed  # noqa: E402
from imagesmith.core.specs import ModelSpec  # noqa: E402
from imagesmith.engines.torch import builder  # noqa: E402
from imagesmith.exporting import export  # noqa: E402
from imagesmith.exporting.export import OnnxRunner, cache_folder, convert, export_onnx, export_openvino  # noqa: E402
from imagesmith.exporting.graph import halve_weights  # noqa: E402

NETWORKS = {
    "segformer": (
        "segment",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "num_attention_heads": [1, 2, 3, 4],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 16,
            "num_labels": 5,
        },
    ),
    "vit": (
        "classify",
        {
            "image_size": 32,
            "patch_size": 8,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_labels": 3,
        },
    ),
    "detr": (
        "detect",
        {
            "num_queries": 4,
            "num_labels": 3,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "backbone_config": {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        },
    ),
}


def make_model(architecture, folder, dtype=torch.float32):
    """Return a spec, a weights file and the random module they came from, its statistics no longer trivial."""
    task, config = NETWORKS[architecture]
    torch.manual_seed(0)
    module = builder(architecture).from_config(config)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else value + 0.05 * torch.randn_like(value))
                value.copy_(value.to(dtype))
    weights = folder / f"{architecture}.safetensors"
    save_file({name: value.to(dtype).contiguous() for name, value in module.state_dict().items()}, weights)
    spec = ModelSpec(name=architecture, task=task, architecture=architecture, source=f"folder:{folder}", config=config)
    return spec, weights, module.eval()


def assert_same(run, module, atol=5e-5):
    """Compare at a size and a batch that neither the trace nor the parity check used."""
    images = np.random.default_rng(5).standard_normal((4, 3, 72, 104), dtype=np.float32)
    found = run(images)
    with torch.no_grad():
        expected = module(torch.from_numpy(images))
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=atol)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_onnx_answers_as_torch(architecture, tmp_path):
    spec, weights, module = make_model(architecture, tmp_path)
    report = export_onnx(spec, weights, tmp_path / "out" / "model.onnx")
    assert report.passed
    assert {case.shape[0] for case in report.cases} == {1, 2, 3}
    assert len({case.shape[1:] for case in report.cases}) == 2
    assert_same(OnnxRunner(tmp_path / "out" / "model.onnx"), module)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("architecture", NETWORKS)
def test_half_stores_the_same_function_in_less(architecture, tmp_path):
    spec, weights, module = make_model(architecture, tmp_path, torch.float16)
    export_onnx(spec, weights, tmp_path / "full.onnx")
    report = export_onnx(spec, weights, tmp_path / "half.onnx", half=True)
    assert report.passed
    assert_same(OnnxRunner(tmp_path / "half.onnx"), module)
    images = np.random.default_rng(5).standard_normal((2, 3, 64, 64), dtype=np.float32)
    full, half = (OnnxRunner(tmp_path / name)(images) for name in ("full.onnx", "half.onnx"))
    for name, value in full.items():
        np.testing.assert_allclose(half[name], value, atol=5e-6)


def test_half_keeps_convolutions_in_half(tmp_path):
    import onnx
    import onnxruntime

    spec, weights, _ = make_model("detr", tmp_path, torch.float16)
    export_onnx(spec, weights, tmp_path / "half.onnx", half=True)
    tensors = onnx.load(tmp_path / "half.onnx").graph.initializer
    assert not [
        tensor.name for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 255
    ]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(tmp_path / "half.onnx", options, providers=["CPUExecutionProvider"])
    loaded = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert "Conv" in loaded
    assert "BatchNormalization" not in loaded


def test_half_halves_a_larger_model(tmp_path):
    task, config = NETWORKS["vit"]
    spec = ModelSpec(
        name="vit", task=task, architecture="vit", source="folder:x", config={**config, "hidden_size": 256}
    )
    module = builder("vit").from_config(spec.config)
    save_file(module.half().state_dict(), tmp_path / "w.safetensors")
    export_onnx(spec, tmp_path / "w.safetensors", tmp_path / "full.onnx")
    export_onnx(spec, tmp_path / "w.safetensors", tmp_path / "half.onnx", half=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("full.onnx", "half.onnx")]
    assert sizes[1] < 0.55 * sizes[0]


def test_half_rounds_weights_that_were_not_stored_so(tmp_path):
    spec, weights, module = make_model("vit", tmp_path)
    export_onnx(spec, weights, tmp_path / "half.onnx", half=True)
    with pytest.raises(AssertionError):
        assert_same(OnnxRunner(tmp_path / "half.onnx"), module, atol=1e-6)
    assert_same(OnnxRunner(tmp_path / "half.onnx"), module, atol=1e-2)


def test_segformer_graph_holds_the_folded_head(tmp_path):
    import onnx

    spec, weights, _ = make_model("segformer", tmp_path)
    export_onnx(spec, weights, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    shapes = [tuple(tensor.dims) for tensor in graph.initializer]
    # One 1x1 convolution per scale straight to the decoder's width, and none over the four of them together.
    assert [shape for shape in shapes if shape in {(16, width, 1, 1) for width in (8, 16, 24, 32)}]
    assert (16, 64, 1, 1) not in shapes
    assert not {"Concat"} & {node.op_type for node in graph.node if "decode_head" in node.name and "Shape" in node.name}
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_a_wrong_export_is_not_written(tmp_path, monkeypatch):
    spec, weights, _ = make_model("vit", tmp_path)
    before = tmp_path / "model.onnx"
    before.write_bytes(b"the former one")
    real = export.inference_module
    trace = export._trace_onnx

    def spoiled(module, spec, fold_norms):
        with torch.no_grad():
            module.classifier.bias += 0.01
            graph = trace(module, spec, fold_norms)
            module.classifier.bias -= 0.01
        return graph

    monkeypatch.setattr(export, "_trace_onnx", spoiled)
    with pytest.raises(EngineFailed, match="not written"):
        export_onnx(spec, weights, before)
    assert before.read_bytes() == b"the former one"
    assert real is export.inference_module
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "vit.safetensors"]


def test_not_a_number_fails_parity(tmp_path):
    from imagesmith.exporting.parity import check_inputs, compare

    _, _, module = make_model("vit", tmp_path)
    report = compare(module, lambda values: {"logits": np.full((len(values), 3), np.nan)}, check_inputs([(32, 32)]))
    assert not report.passed
    report = compare(module, lambda values: {"logits": np.zeros((1, 3))}, check_inputs([(32, 32)]))
    assert not report.passed


@pytest.mark.parametrize("architecture", NETWORKS)
def test_openvino_answers_as_torch(architecture, tmp_path):
    openvino = pytest.importorskip("openvino")
    spec, weights, module = make_model(architecture, tmp_path)
    assert export_openvino(spec, weights, tmp_path / "out" / "model.xml").passed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.bin", "model.xml"]
    compiled = openvino.Core().compile_model(tmp_path / "out" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images):
        result = compiled({"pixel_values": images})
        return {name: result[name] for name in module(torch.zeros(1, 3, 32, 32))}

    assert_same(run, module)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_conversions_are_kept_by_the_hash_of_the_weights(kind, tmp_path, monkeypatch):
    written = []

    def fake(spec, weights, out, allow_pickle=False):
        out.parent.mkdir(parents=True)
        out.write_text("converted")
        written.append(out)

    monkeypatch.setattr(export, f"export_{kind}", fake)
    spec, weights, _ = make_model("vit", tmp_path)
    first = convert(spec, weights, kind, cache=tmp_path / "cache")
    moved = weights.rename(tmp_path / "elsewhere.safetensors")
    assert convert(spec, moved, kind, cache=tmp_path / "cache") == first
    assert len(written) == 1
    changed = bytearray(moved.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(changed)
    convert(spec, moved, kind, cache=tmp_path / "cache")
    assert len(written) == 2
    monkeypatch.setattr(export.metadata, "version", lambda name: "99.0")
    convert(spec, moved, kind, cache=tmp_path / "cache")
    assert len(set(written)) == 3


def test_a_conversion_is_kept(tmp_path):
    spec, weights, module = make_model("vit", tmp_path)
    path = convert(spec, weights, "onnx", cache=tmp_path / "cache")
    stamp = path.stat().st_mtime_ns
    assert convert(spec, weights, "onnx", cache=tmp_path / "cache").stat().st_mtime_ns == stamp
    assert_same(OnnxRunner(path), module)


def test_what_cannot_be_converted_is_said(tmp_path):
    spec, weights, _ = make_model("vit", tmp_path)
    with pytest.raises(BadInput, match="onnx or openvino"):
        convert(spec, weights, "tensorrt", cache=tmp_path)
    general = spec.model_copy(update={"architecture": "transformers"})
    with pytest.raises(BadInput, match="only those"):
        convert(general, weights, "onnx", cache=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineFailed, match="cannot be written"):
        convert(spec, weights, "onnx", cache=tmp_path / "file")


def test_halving_leaves_small_and_exact_weights_alone():
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "exact": rng.standard_normal((32, 32)).astype(np.float16).astype(np.float32),
        "full": rng.standard_normal((32, 32)).astype(np.float32),
        "large": np.full((32, 32), 1e30, np.float32),
        "small": np.ones((4, 4), np.float32),
    }
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in weights]
    outputs = [helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, [None, None]) for name in weights]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    halved = onnx.load_from_string(halve_weights(model.SerializeToString()))
    kinds = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert kinds.pop("exact_half") == onnx.TensorProto.FLOAT16
    assert kinds == dict.fromkeys(("full", "large", "small"), onnx.TensorProto.FLOAT)


def test_cache_folder_follows_the_environment(tmp_path):
    assert cache_folder({"IMAGESMITH_CACHE": str(tmp_path)}) == tmp_path
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}).name == "imagesmith"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("segformer", {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "decoder_hidden_size": 768,
                       "num_labels": 18}),
        ("vit", {"image_size": 224, "num_labels": 2}),
        ("detr", {"backbone": "resnet50", "num_labels": 91}),
    ],
)  # fmt: skip
def test_published_sizes_export(architecture, config, kind, tmp_path):
    torch.manual_seed(0)
    task, _ = NETWORKS[architecture]
    module = builder(architecture).from_config(config)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, tmp_path / "w.safetensors")
    spec = ModelSpec(name="x", task=task, architecture=architecture, source="folder:x", config=config)
    write = export_onnx if kind == "onnx" else export_openvino
    report = write(spec, tmp_path / "w.safetensors", tmp_path / ("m.onnx" if kind == "onnx" else "m.xml"))
    print(architecture, kind, report.sentence())
    assert report.passed
