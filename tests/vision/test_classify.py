"""Classification: probabilities against torch, order, crops and what a face model's answer says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from imagesmith.core.errors import EngineFailed
from imagesmith.core.requests import ClassifyRequest
from imagesmith.image.photo import Photo
from imagesmith.vision.classify import Crop, classify, probabilities_of

LABELS = ("cat", "dog", "bird", "fish")


def answer(inputs: Any) -> dict[str, Any]:
    seeds = [int(value) for value in inputs["pixel_values"][:, 0, 0, 0]]
    return {"logits": np.stack([np.random.default_rng(seed).normal(0, 2, 4) for seed in seeds]).astype(np.float32)}


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_equal_torch(multi_label: bool) -> None:
    logits = np.random.default_rng(0).normal(0, 30, (20, 7)).astype(np.float32)
    logits[0, 0], logits[1, 1] = 3e4, -3e4
    values = torch.from_numpy(logits).double()
    expected = values.sigmoid() if multi_label else values.softmax(-1)
    with np.errstate(over="raise"):
        found = probabilities_of(logits, multi_label=multi_label)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_best_labels_of_every_photograph_in_order(
    fake_engine: Any, make_photo: Any, make_spec: Any, multi_label: bool
) -> None:
    photos = [make_photo(64 + 40 * (index % 2), 64, value=index, name=str(index)) for index in range(7)]
    spec = make_spec("classify", LABELS, multi_label=multi_label)
    results = list(classify(photos, fake_engine(answer), spec, ClassifyRequest(top_k=3, batch_size=4)))
    for index, result in enumerate(results):
        logits = torch.from_numpy(np.random.default_rng(index).normal(0, 2, 4).astype(np.float32))
        expected = logits.sigmoid() if multi_label else logits.softmax(-1)
        top = expected.topk(3)
        assert result.image == str(index)
        assert result.labels == tuple(LABELS[place] for place in top.indices)
        np.testing.assert_allclose(result.scores, top.values.numpy(), atol=1e-6)
        assert result.note == ""
        assert result.cropped_xyxy is None


def test_top_k_beyond_the_labels_gives_all(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    result = next(
        classify([make_photo(9, 9)], fake_engine(answer), make_spec("classify", LABELS), ClassifyRequest(top_k=50))
    )
    assert len(result.labels) == 4
    assert result.scores.sum() == pytest.approx(1)


def crop_corner(photo: Photo) -> Crop:
    return Crop(Photo(photo.pixels[:8, :8], photo.name), (0, 0, 8, 8), "looked only at a corner")


def test_a_crop_is_looked_at_and_told(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    pixels = np.full((100, 100, 3), 9, np.uint8)
    pixels[:8, :8] = 1
    photo, spec = Photo(pixels, "p"), make_spec("classify", LABELS)
    engine = fake_engine(answer)
    result = next(classify([photo], engine, spec, ClassifyRequest(), crop=crop_corner))
    plain = next(classify([make_photo(8, 8, value=1)], fake_engine(answer), spec, ClassifyRequest()))
    np.testing.assert_array_equal(result.scores, plain.scores)
    assert result.cropped_xyxy == (0, 0, 8, 8)
    assert "only at a corner" in result.note
    whole = next(classify([photo], engine, spec, ClassifyRequest(crop="none"), crop=crop_corner))
    assert whole.cropped_xyxy is None


def test_a_gender_label_is_called_a_guess(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    spec = make_spec("classify", ("female", "male"))
    engine = fake_engine(lambda inputs: {"logits": np.array([[np.log(0.93), np.log(0.07)]], np.float32)})
    result = next(classify([make_photo(64, 64)], engine, spec, ClassifyRequest()))
    assert result.note == "The model's guess, 93% sure; it looked at all of the photograph."
    cropped = next(classify([make_photo(64, 64)], engine, spec, ClassifyRequest(), crop=crop_corner))
    assert cropped.note == "The model's guess, 93% sure; it looked only at a corner."


def test_wrong_answers_are_one_sentence(fake_engine: Any, make_photo: Any, make_spec: Any) -> None:
    with pytest.raises(EngineFailed, match=r"\(1, 3\), from its 3 labels, but gave \(1, 4\)"):
        next(classify([make_photo(8, 8)], fake_engine(answer), make_spec("classify", LABELS[:3]), ClassifyRequest()))
    broken = fake_engine(lambda inputs: {"logits": np.full((1, 4), np.inf, np.float32)})
    with pytest.raises(EngineFailed, match="NaN or infinity"):
        next(classify([make_photo(8, 8)], broken, make_spec("classify", LABELS), ClassifyRequest()))
