"""Segmentation from photographs to results, with an engine whose logits are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from imagesmith.core.errors import BadInput, EngineFailed
from imagesmith.core.requests import SegmentRequest
from imagesmith.core.specs import Preprocessing
from imagesmith.image.results import UNSURE
from imagesmith.vision.heads import Crop
from imagesmith.vision.segment import rank_by_uncertainty, segment

LABELS = ("background", "hair", "dress", "bag")


def answer(inputs: Any) -> dict[str, Any]:
    """Logits a quarter of the input's size, different for every photograph: seeded by its first value."""
    values = inputs["pixel_values"]
    shape = (len(LABELS), values.shape[2] // 4, values.shape[3] // 4)
    seeds = [int(value) for value in values[:, 0, 0, 0]]
    return {"logits": np.stack([np.random.default_rng(seed).normal(0, 3, shape) for seed in seeds]).astype(np.float32)}


def expected_for(value: int, input_hw: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    logits = answer({"pixel_values": np.full((1, 3, *input_hw), value, np.float32)})["logits"]
    full = torch.nn.functional.interpolate(torch.from_numpy(logits), size=size_hw, mode="bilinear")
    return full[0].numpy()


def test_each_result_is_its_photographs_own(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    sizes = [(128, 128), (256, 128), (100, 100), (301, 150), (128, 128)]
    photos = [make_photo(*size, value=index, name=f"{index}.png") for index, size in enumerate(sizes)]
    engine = fake_engine(answer)
    results = list(segment(photos, engine, make_spec("segment", LABELS), SegmentRequest(batch_size=3)))
    assert [result.image for result in results] == [photo.name for photo in photos]
    for index, (result, size_hw) in enumerate(zip(results, sizes, strict=True)):
        input_hw = (64, 64) if size_hw[0] == size_hw[1] else (64, 32)
        np.testing.assert_array_equal(result.labels_hw, expected_for(index, input_hw, size_hw).argmax(0))
        assert result.confidence is None
        assert result.entropy is None
        assert result.probabilities is None
        assert result.uncertainty is not None
    assert sorted(engine.shapes) == [(2, 3, 64, 32), (3, 3, 64, 64)]


def test_batch_size_changes_nothing(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    photos = [make_photo(80, 60 + 20 * (index % 2), value=index) for index in range(6)]
    spec = make_spec("segment", LABELS)
    one, many = (
        [result.labels_hw for result in segment(photos, fake_engine(answer), spec, SegmentRequest(batch_size=size))]
        for size in (1, "auto")
    )
    assert all(np.array_equal(first, second) for first, second in zip(one, many, strict=True))


def test_certainty_on_request_and_threshold(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    request = SegmentRequest(confidence=True, entropy=True, probabilities=True, threshold=0.6)
    result = next(segment([make_photo(90, 90, value=7)], fake_engine(answer), make_spec("segment", LABELS), request))
    probabilities = torch.from_numpy(expected_for(7, (64, 64), (90, 90))).softmax(0).numpy()
    np.testing.assert_allclose(result.probabilities, probabilities, atol=1e-5)
    np.testing.assert_allclose(result.confidence, probabilities.max(0), atol=1e-5)
    assert result.entropy is not None
    unsure = result.labels_hw == UNSURE
    assert 0.05 < unsure.mean() < 0.95
    assert (probabilities.max(0)[unsure] < 0.6 + 1e-5).all()
    assert (probabilities.max(0)[~unsure] > 0.6 - 1e-5).all()
    np.testing.assert_array_equal(result.labels_hw[~unsure], probabilities.argmax(0)[~unsure])
    assert result.unsure_share == pytest.approx(unsure.mean())


def test_threshold_alone_keeps_no_map(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    result = next(
        segment([make_photo(40, 40)], fake_engine(answer), make_spec("segment", LABELS), SegmentRequest(threshold=1.0))
    )
    assert result.confidence is None
    assert (result.labels_hw == UNSURE).all()


def test_resolution_is_an_option(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    engine = fake_engine(answer)
    result = next(segment([make_photo(90, 90)], engine, make_spec("segment", LABELS), SegmentRequest(resolution=128)))
    assert engine.shapes == [(1, 3, 128, 128)]
    assert result.size_hw == (90, 90)


def test_one_pixel(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    preprocessing = Preprocessing(height=64, width=64, mean=(0, 0, 0), std=(1, 1, 1))
    spec = make_spec("segment", LABELS, preprocessing=preprocessing)
    result = next(segment([make_photo(1, 1)], fake_engine(answer), spec, SegmentRequest(confidence=True)))
    assert result.size_hw == (1, 1)
    assert result.confidence is not None


def test_results_come_lazily(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    engine = fake_engine(answer)
    results = segment(
        (make_photo(32, 32) for _ in range(100)), engine, make_spec("segment", LABELS), SegmentRequest(batch_size=2)
    )
    assert engine.shapes == []
    next(results)
    assert len(engine.shapes) == 1


def test_ranking_lists_the_least_certain_first(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    def by_brightness(inputs: Any) -> dict[str, Any]:
        """The brighter the photograph, the larger the logits, so the surer the model."""
        return {"logits": answer(inputs)["logits"] * inputs["pixel_values"][:, :1, :1, :1] / 50}

    photos = [make_photo(64, 64, value=value, name=f"{value}.png") for value in (200, 1, 90, 30)]
    results = segment(photos, fake_engine(by_brightness), make_spec("segment", LABELS), SegmentRequest())
    ranked = rank_by_uncertainty(results)
    assert [result.image for result in ranked] == ["1.png", "30.png", "90.png", "200.png"]
    values = [result.uncertainty or 0 for result in ranked]
    assert values == sorted(values, reverse=True)


def test_ranking_needs_uncertainty(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    from dataclasses import replace

    result = next(segment([make_photo(8, 8)], fake_engine(answer), make_spec("segment", LABELS), SegmentRequest()))
    with pytest.raises(BadInput, match="no uncertainty"):
        rank_by_uncertainty([replace(result, uncertainty=None)])


def test_wrong_answers_are_one_sentence(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    spec = make_spec("segment", (*LABELS, "one more"))
    with pytest.raises(EngineFailed, match=r"5, any, any.*\(1, 4, 16, 16\)"):
        next(segment([make_photo(64, 64)], fake_engine(answer), spec, SegmentRequest()))
    with pytest.raises(EngineFailed, match="logits"):
        next(segment([make_photo(64, 64)], fake_engine(lambda inputs: {}), spec, SegmentRequest()))
    broken = fake_engine(lambda inputs: {"logits": answer(inputs)["logits"] * np.nan})
    with pytest.raises(EngineFailed, match="NaN"):
        next(segment([make_photo(64, 64)], broken, make_spec("segment", LABELS), SegmentRequest()))


def test_a_crop_is_seen_alone_and_put_back(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    photo, part = make_photo(90, 120, value=1, name="whole.png"), make_photo(40, 40, value=7, name="whole.png")
    crop = Crop(part, (30, 20, 70, 60), "looked only at the head")
    spec, request = make_spec("segment", LABELS), SegmentRequest(confidence=True, probabilities=True)
    found = iter([crop, None])
    cropped, whole = segment([photo, photo], fake_engine(answer), spec, request, crop=lambda _: next(found))
    alone = next(segment([part], fake_engine(answer), spec, request))
    np.testing.assert_array_equal(cropped.labels_hw[20:60, 30:70], alone.labels_hw)
    outside = np.ones((90, 120), np.bool_)
    outside[20:60, 30:70] = False
    assert (cropped.labels_hw[outside] == LABELS.index("background")).all()
    assert (cropped.confidence[outside] == 1).all()
    np.testing.assert_allclose(cropped.probabilities.sum(0), 1, atol=1e-5)
    assert cropped.cropped_xyxy == (30, 20, 70, 60)
    assert whole.cropped_xyxy is None
    assert (whole.labels_hw[outside] != LABELS.index("background")).any()
