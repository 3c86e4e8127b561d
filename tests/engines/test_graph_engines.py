"""ONNX Runtime and OpenVINO on the same tiny graphs, against NumPy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from imagesmith.core.errors import BadWeights, EngineFailed

pytest.importorskip("onnxruntime", reason="needs the extra [cpu]")
pytest.importorskip("openvino", reason="needs the extra [cpu]")

from imagesmith.engines.onnx import available_providers, open_onnx
from imagesmith.engines.openvino import AGAIN, MOST_SHAPES, open_openvino

OPENERS = {"onnx": open_onnx, "openvino": open_openvino}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=sorted(OPENERS))
def opener(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return OPENERS[request.param]


def test_equal_to_numpy_at_changing_sizes_and_batches(opener: Any, segmenter: Any, rng: Any) -> None:
    engine = opener(segmenter.spec, segmenter.path, threads=1)
    assert engine.inputs == ("pixel_values",)
    for shape in [(1, 3, 16, 24), (4, 3, 16, 24), (2, 3, 16, 24), (1, 3, 8, 8), (1, 3, 32, 4), (1, 3, 8, 8)] * 2:
        pixels = rng.standard_normal(shape).astype(np.float32)
        got = engine.run({"pixel_values": pixels})
        assert got.keys() == {"logits"}
        assert got["logits"].dtype == np.float32
        np.testing.assert_allclose(got["logits"], segmenter.expected(pixels)["logits"], **TOLERANCE)


def test_weights_stored_in_half_are_computed_in_single(opener: Any, make_segmenter: Any, rng: Any) -> None:
    tiny = make_segmenter(half=True)
    pixels = rng.standard_normal((1, 3, 16, 16)).astype(np.float32) * 100
    got = opener(tiny.spec, tiny.path).run({"pixel_values": pixels})["logits"]
    expected = tiny.expected(pixels)["logits"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-3)
    # negative control: arithmetic in half precision would be far outside this tolerance
    halved = tiny.expected(pixels.astype(np.float16).astype(np.float32))["logits"]
    assert np.abs(halved - expected).max() > 1e-2


def test_names_and_types_of_other_exporters(opener: Any, make_segmenter: Any, rng: Any) -> None:
    tiny = make_segmenter(input_name="images", output_name="output_0")
    engine = opener(tiny.spec, tiny.path)
    assert engine.inputs == ("pixel_values",)
    pixels = rng.standard_normal((1, 3, 8, 8))  # float64, not contiguous
    got = engine.run({"pixel_values": pixels[..., ::-1]})
    expected = tiny.expected(pixels[..., ::-1].astype(np.float32))
    np.testing.assert_allclose(got["logits"], expected["logits"], **TOLERANCE)


def test_fixed_batch_is_split_and_fixed_size_explained(opener: Any, make_segmenter: Any, rng: Any) -> None:
    tiny = make_segmenter(shape=(2, 3, 16, 16))
    engine = opener(tiny.spec, tiny.path)
    for count in (1, 2, 5):
        pixels = rng.standard_normal((count, 3, 16, 16)).astype(np.float32)
        got = engine.run({"pixel_values": pixels})["logits"]
        np.testing.assert_allclose(got, tiny.expected(pixels)["logits"], **TOLERANCE)
    with pytest.raises(EngineFailed, match=r"16x16 pixels .* not 8x8"):
        engine.run({"pixel_values": np.zeros((1, 3, 8, 8), np.float32)})


def test_mask_is_used_where_given_and_made_where_not(opener: Any, make_detector: Any, rng: Any) -> None:
    tiny = make_detector()
    engine = opener(tiny.spec, tiny.path)
    assert engine.inputs == ("pixel_values", "pixel_mask")
    pixels = rng.standard_normal((2, 3, 12, 20)).astype(np.float32)
    mask = np.ones((2, 12, 20), np.float32)
    unmasked = engine.run({"pixel_values": pixels})
    np.testing.assert_allclose(unmasked["pred_boxes"], tiny.expected(pixels, mask)["pred_boxes"], **TOLERANCE)
    mask[1, :, 10:] = 0
    masked = engine.run({"pixel_values": pixels, "pixel_mask": mask})
    for name, value in tiny.expected(pixels, mask).items():
        np.testing.assert_allclose(masked[name], value, **TOLERANCE)
    assert not np.allclose(masked["logits"][1], unmasked["logits"][1])


def test_mask_of_fixed_size_and_integers(opener: Any, make_detector: Any, rng: Any) -> None:
    """Some published exports want an int64 mask of 64x64 whatever the picture's size."""
    tiny = make_detector(("n", 64, 64), mask_type="INT64")
    engine = opener(tiny.spec, tiny.path)
    pixels = rng.standard_normal((1, 3, 32, 48)).astype(np.float32)
    mask = np.ones((1, 32, 48), np.float32)
    mask[:, :, 24:] = 0
    got = engine.run({"pixel_values": pixels, "pixel_mask": mask})
    np.testing.assert_allclose(got["logits"], tiny.expected(pixels, mask)["logits"], **TOLERANCE)
    assert engine.run({"pixel_values": pixels})["logits"].shape == got["logits"].shape


def test_several_threads_at_once(opener: Any, segmenter: Any, rng: Any) -> None:
    engine = opener(segmenter.spec, segmenter.path)
    photos = [rng.standard_normal((1, 3, 8, 8 * side)).astype(np.float32) for side in range(1, 9)]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            got = engine.run({"pixel_values": photos[index]})["logits"]
            if not np.allclose(got, segmenter.expected(photos[index])["logits"], **TOLERANCE):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_results_do_not_change_later(opener: Any, segmenter: Any, rng: Any) -> None:
    engine = opener(segmenter.spec, segmenter.path)
    first = engine.run({"pixel_values": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)})["logits"]
    kept = first.copy()
    engine.run({"pixel_values": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_closed_engine_says_so(opener: Any, segmenter: Any) -> None:
    engine = opener(segmenter.spec, segmenter.path)
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.run({"pixel_values": np.zeros((1, 3, 8, 8), np.float32)})


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08\x12\x04oops and nothing more", b"\x80\x04K\x01."])
def test_a_file_that_is_no_graph(opener: Any, segmenter: Any, content: bytes) -> None:
    path = segmenter.path.with_name("broken.onnx")
    path.write_bytes(content)
    with pytest.raises((BadWeights, EngineFailed)) as caught:
        opener(segmenter.spec, path)
    assert "broken.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_graph_of_another_task(opener: Any, segmenter: Any) -> None:
    detector = segmenter.spec.model_copy(update={"task": "detect"})
    with pytest.raises(BadWeights, match="pred_boxes"):
        opener(detector, segmenter.path)


def test_a_run_without_pictures(opener: Any, segmenter: Any) -> None:
    with pytest.raises(EngineFailed, match="pixel_values"):
        opener(segmenter.spec, segmenter.path).run({"image": np.zeros(1)})


def test_a_failing_run_is_one_sentence(opener: Any, segmenter: Any) -> None:
    with pytest.raises(EngineFailed) as caught:
        opener(segmenter.spec, segmenter.path).run({"pixel_values": np.zeros((1, 3, 2, 2), np.float32)})
    assert "model.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_providers_are_named(segmenter: Any) -> None:
    missing = next(name for name in ("cuda", "directml", "coreml") if name not in available_providers())
    with pytest.raises(EngineFailed, match=f"no {missing} provider"):
        open_onnx(segmenter.spec, segmenter.path, provider=missing)
    with pytest.raises(EngineFailed, match="cannot run on mps"):
        open_onnx(segmenter.spec, segmenter.path, device="mps")
    with pytest.raises(EngineFailed, match="does not compute in fp16"):
        open_onnx(segmenter.spec, segmenter.path, precision="fp16")


def test_missing_openvino_device_is_named(segmenter: Any) -> None:
    for device in ("cuda", "cpu:3", "mps"):
        with pytest.raises(EngineFailed, match=f"no device {device} here, only .*CPU"):
            open_openvino(segmenter.spec, segmenter.path, device=device)


def test_openvino_compiles_for_shapes_that_keep_coming(segmenter: Any) -> None:
    engine = open_openvino(segmenter.spec, segmenter.path)
    engine.run({"pixel_values": np.zeros((4, 3, 8, 8), np.float32)})
    assert len(engine._exact) == 1
    engine.run({"pixel_values": np.zeros((3, 3, 8, 8), np.float32)})  # a last batch is filled up
    assert len(engine._exact) == 1
    assert engine._any is None
    for _ in range(AGAIN - 1):
        engine.run({"pixel_values": np.zeros((1, 3, 16, 8), np.float32)})
    assert len(engine._exact) == 1
    assert engine._any is not None
    for side in range(1, 6):
        for _ in range(AGAIN):
            engine.run({"pixel_values": np.zeros((1, 3, 16, 8 * side), np.float32)})
    assert len(engine._exact) == MOST_SHAPES


def test_openvino_stays_exact_unless_asked(segmenter: Any, rng: Any) -> None:
    """On processors with bf16 its default would be bf16."""
    pixels = rng.standard_normal((1, 3, 64, 64)).astype(np.float32)
    expected = segmenter.expected(pixels)["logits"]
    exact = open_openvino(segmenter.spec, segmenter.path).run({"pixel_values": pixels})["logits"]
    np.testing.assert_allclose(exact, expected, **TOLERANCE)
    rough = open_openvino(segmenter.spec, segmenter.path, precision="bf16").run({"pixel_values": pixels})["logits"]
    np.testing.assert_allclose(rough, expected, rtol=0.05, atol=0.3)
