"""Detection: transformers' own post-processing is the oracle; batches, padding and masks with a fake engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from imagesmith.core.errors import EngineFailed
from imagesmith.core.requests import DetectRequest
from imagesmith.image.boxes import iou
from imagesmith.image.results import Detections
from imagesmith.vision.detect import Candidates, detect, pad_inputs, read_queries, select

LABELS = ("person", "dress", "bag")


def outputs_for(seed: int, queries: int = 30, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (queries, classes + 1)).astype(np.float32)
    centres, sides = random.uniform(0.2, 0.8, (queries, 2)), random.uniform(0.05, 0.4, (queries, 2))
    return logits, np.concatenate([centres, sides], axis=1).astype(np.float32)


def answer(inputs: Any) -> dict[str, Any]:
    """Different boxes for every photograph: seeded by its first value."""
    parts = [outputs_for(int(value)) for value in inputs["pixel_values"][:, 0, 0, 0]]
    return {"logits": np.stack([part[0] for part in parts]), "pred_boxes": np.stack([part[1] for part in parts])}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9])
def test_equals_transformers(seed: int, threshold: float) -> None:
    processing = pytest.importorskip("transformers.models.detr.image_processing_pil_detr")
    logits, boxes = outputs_for(seed, queries=100, classes=11)
    outputs = SimpleNamespace(logits=torch.from_numpy(logits)[None], pred_boxes=torch.from_numpy(boxes)[None])
    expected = processing.DetrImageProcessorPil().post_process_object_detection(
        outputs, threshold=threshold, target_sizes=[(480, 640)]
    )[0]
    labels = tuple(f"class {index}" for index in range(11))
    found = read_queries(logits, boxes, labels, (480, 640))
    kept = found.scores > threshold
    np.testing.assert_array_equal(found.label_ids[kept], expected["labels"].numpy())
    np.testing.assert_allclose(found.scores[kept], expected["scores"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy[kept], expected["boxes"].numpy(), atol=1e-3)


def test_a_class_without_a_name_is_never_chosen() -> None:
    logits = np.log(np.array([[0.6, 0.3, 0.05, 0.05]], np.float32))
    found = read_queries(logits, np.full((1, 4), 0.5, np.float32), ("", "person", "bag"), (10, 10))
    assert found.label_ids.tolist() == [1]
    assert found.scores[0] == pytest.approx(0.3)


def test_results_are_sorted_cut_and_in_the_photographs_pixels(
    fake_engine: Any, make_photo: Any, make_spec: Any
) -> None:
    photo = make_photo(300, 200, value=3, name="a.png")
    request = DetectRequest(threshold=0.4, top_n=7)
    result = next(detect([photo], fake_engine(answer), make_spec("detect", LABELS), request))
    logits, boxes = outputs_for(3)
    scores = torch.from_numpy(logits).softmax(-1)[:, :3].amax(-1).numpy()
    best = np.argsort(-scores)[:7]
    np.testing.assert_allclose(result.scores, scores[best], rtol=1e-5)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)[best]
    np.testing.assert_allclose(result.boxes_xyxy, (corners * [200, 300, 200, 300]).clip(0, [200, 300] * 2), atol=1e-3)
    assert result.labels == tuple(LABELS[index] for index in logits[best, :3].argmax(1))
    assert result.size_hw == (300, 200)
    assert isinstance(result, Detections)


def test_near_sizes_share_a_masked_batch(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    photos = [make_photo(200, 200, value=1), make_photo(200, 180, value=2), make_photo(60, 200, value=3)]
    engine = fake_engine(answer, inputs=("pixel_values", "pixel_mask"))
    results = list(detect(photos, engine, make_spec("detect", LABELS), DetectRequest(batch_size=4, threshold=0.3)))
    assert engine.shapes == [(2, 3, 64, 64), (1, 3, 16, 64)]
    assert engine.given == [{"pixel_values", "pixel_mask"}, {"pixel_values"}]  # no mask where nothing is padded
    assert [result.size_hw for result in results] == [(200, 200), (200, 180), (60, 200)]


def test_without_a_mask_input_only_equal_sizes_share(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    photos = [make_photo(200, 200, value=1), make_photo(200, 180, value=2), make_photo(100, 100, value=3)]
    engine = fake_engine(answer)
    results = list(detect(photos, engine, make_spec("detect", LABELS), DetectRequest(batch_size=4)))
    assert sorted(engine.shapes) == [(1, 3, 64, 56), (2, 3, 64, 64)]
    assert engine.given == [{"pixel_values"}] * 2
    alone = [
        next(detect([photo], fake_engine(answer), make_spec("detect", LABELS), DetectRequest())) for photo in photos
    ]
    for together, single in zip(results, alone, strict=True):
        np.testing.assert_array_equal(together.boxes_xyxy, single.boxes_xyxy)


def test_padding_is_zero_and_masked() -> None:
    inputs = pad_inputs([np.ones((3, 2, 4), np.float32), np.ones((3, 4, 2), np.float32)])
    assert inputs["pixel_values"].shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(inputs["pixel_mask"][0], [[1] * 4] * 2 + [[0] * 4] * 2)
    np.testing.assert_array_equal(inputs["pixel_values"][1, 0], inputs["pixel_mask"][1])


def overlapping() -> Candidates:
    boxes = np.array([[0, 0, 100, 100], [5, 5, 100, 100], [0, 0, 98, 100], [200, 200, 300, 300]], np.float32)
    return Candidates(boxes, np.array([0.9, 0.95, 0.8, 0.6], np.float32), np.array([0, 0, 1, 0]))


def test_suppression_only_where_asked_and_within_a_label() -> None:
    assert len(select(overlapping(), DetectRequest()).scores) == 4
    hard = select(overlapping(), DetectRequest(nms="hard", nms_iou=0.7))
    assert hard.scores.tolist() == pytest.approx([0.95, 0.8, 0.6])
    assert hard.label_ids.tolist() == [0, 1, 0]
    soft = select(overlapping(), DetectRequest(nms="soft", threshold=0.05))
    lowered = 0.9 * np.exp(-(iou(overlapping().boxes_xyxy[:1], overlapping().boxes_xyxy[1:2])[0, 0] ** 2) / 0.5)
    assert soft.scores.tolist() == pytest.approx([0.95, 0.8, 0.6, lowered], rel=1e-5)
    assert len(select(overlapping(), DetectRequest(nms="soft", threshold=0.5)).scores) == 3


def test_nothing_found_is_an_empty_result(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    request = DetectRequest(threshold=1.0, nms="hard")
    result = next(detect([make_photo(64, 64)], fake_engine(answer), make_spec("detect", LABELS), request))
    assert len(result) == 0
    assert result.to_dict()["detections"] == []
    assert result.draw(make_photo(64, 64)).shape[2] == 3


def test_wrong_answers_are_one_sentence(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    photo, spec = make_photo(64, 64), make_spec("detect", LABELS)
    with pytest.raises(EngineFailed, match=r"\(1, queries, 5\).*\(1, 30, 4\)"):
        next(detect([photo], fake_engine(answer), make_spec("detect", (*LABELS, "hat")), DetectRequest()))
    with pytest.raises(EngineFailed, match="pred_boxes"):
        next(detect([photo], fake_engine(lambda inputs: {"logits": np.zeros((1, 2, 4))}), spec, DetectRequest()))
    broken = fake_engine(lambda inputs: {**answer(inputs), "pred_boxes": np.full((1, 30, 4), np.nan)})
    with pytest.raises(EngineFailed, match="NaN"):
        next(detect([photo], broken, spec, DetectRequest()))
