"""Measuring from folder to report, with models whose mistakes are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from imagesmith.core.errors import BadImage, BadInput
from imagesmith.core.requests import SeeRequest
from imagesmith.core.specs import ModelSpec, Preprocessing
from imagesmith.evaluation.compare import compare
from imagesmith.evaluation.report import Report
from imagesmith.evaluation.run import evaluate, predictor, request_for
from imagesmith.image.results import Classification, Detections, Segmentation

LABELS = ("background", "hair", "dress")


def spec_of(task: str, labels=LABELS) -> ModelSpec:
    architecture = {"segment": "segformer", "classify": "vit", "detect": "detr"}[task]
    return ModelSpec(name="test/model", task=task, architecture=architecture, source="folder:none", labels=labels)


@pytest.fixture
def mask_folder(tmp_path):
    """Ten pairs whose photograph shows the label by its red value: 0, 100, 200."""
    draw = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(10):
        mask = draw.integers(0, 3, (20 + number, 30)).astype(np.uint8)
        pixels = np.repeat(mask[..., None] * 100, 3, axis=2).astype(np.uint8)
        mask[:2] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "labels.json").write_text(json.dumps({"0": "background", "1": "hair", "2": "dress"}))
    return tmp_path


def see_masks(names=LABELS, wrong_rows=0):
    """Predict the label each pixel's red value shows, by name, wrong in the first rows of the counted pixels."""

    def predict(photos):
        for photo in photos:
            labels = photo.pixels[..., 0] // 100
            labels[2 : 2 + wrong_rows] = (labels[2 : 2 + wrong_rows] + 1) % 3
            order = np.array([names.index(name) for name in LABELS], np.uint8)
            yield Segmentation(order[labels], names, "test/model", photo.name)

    return predict


def test_a_model_that_is_right_everywhere_scores_one_with_certainty(mask_folder):
    seen = []
    report = evaluate(
        spec_of("segment"), mask_folder, see_masks(), split="all", resamples=50, progress=lambda *now: seen.append(now)
    )
    assert {name: figure.value for name, figure in report.figures.items()} == {
        "mean_iou": 1.0,
        "foreground_mean_iou": 1.0,
        "pixel_accuracy": 1.0,
    }
    assert report.figures["mean_iou"].low == 1.0
    assert report.images == 10
    assert seen[-1] == (10, 10)
    assert report.details["classes_occurring"] == 3


def test_figures_are_those_of_all_pixels_together(mask_folder):
    report = evaluate(spec_of("segment"), mask_folder, see_masks(wrong_rows=5), split="all", resamples=50)
    total = sum((20 + number - 2) * 30 for number in range(10))
    assert report.figures["pixel_accuracy"].value == pytest.approx(1 - 10 * 5 * 30 / total)
    assert report.figures["pixel_accuracy"].low < report.figures["pixel_accuracy"].value
    assert report.figures["pixel_accuracy"].high > report.figures["pixel_accuracy"].value
    assert sum(row["count"] for row in report.classes) == total


def test_labels_in_another_order_are_mapped_by_name(mask_folder):
    names = ("Dress", "Sky", "Hair", "background")

    def predict(photos):
        for result in see_masks(("dress", "sky", "hair", "background"))(photos):
            yield Segmentation(result.labels_hw, names, result.model, result.image)

    report = evaluate(spec_of("segment", names), mask_folder, predict, split="all", resamples=10)
    assert report.figures["mean_iou"].value == 1.0


def test_a_label_the_data_does_not_have_is_wrong_and_one_the_model_does_not_have_is_an_error(mask_folder):
    names = (*LABELS, "sky")

    def predict(photos):
        for result in see_masks()(photos):
            labels = result.labels_hw.copy()
            labels[2:4] = 3
            yield Segmentation(labels, names, "m", result.image)

    report = evaluate(spec_of("segment", names), mask_folder, predict, split="all", resamples=10)
    total = sum((18 + number) * 30 for number in range(10))
    assert report.figures["pixel_accuracy"].value == pytest.approx(1 - 10 * 2 * 30 / total)
    with pytest.raises(BadInput, match='such as "dress"'):
        evaluate(spec_of("segment", LABELS[:2]), mask_folder, see_masks(), split="all")


def test_a_mask_of_another_size_and_an_unreadable_photograph_stop_the_measurement(mask_folder):
    Image.new("L", (5, 5)).save(mask_folder / "masks" / "3.png")
    with pytest.raises(BadInput, match="make them the same size"):
        evaluate(spec_of("segment"), mask_folder, see_masks(), split="all")
    (mask_folder / "images" / "0.png").write_bytes(b"no picture")
    with pytest.raises(BadImage, match=r"0\.png"):
        evaluate(spec_of("segment"), mask_folder, see_masks(), split="all")


def test_the_report_survives_json_and_prints(mask_folder, tmp_path):
    report = evaluate(spec_of("segment"), mask_folder, see_masks(wrong_rows=3), split="all", resamples=20)
    path = report.save(tmp_path / "deep" / "report.json")
    assert Report.model_validate(json.loads(path.read_text())) == Report.model_validate(report.to_dict())
    text = report.text()
    assert "mean IoU" in text
    assert "3 of 3 classes" in text
    assert "95% interval from 20 resamples" in text
    assert str(mask_folder) not in path.read_text(), "a report names no folder of this machine"


def test_the_same_seed_gives_the_same_report(mask_folder):
    first, second = (
        evaluate(spec_of("segment"), mask_folder, see_masks(wrong_rows=3), split="all", resamples=30, seed=4)
        for _ in range(2)
    )
    assert first == second


def test_comparison_sees_a_small_constant_difference_that_single_intervals_hide(mask_folder):
    draw = np.random.default_rng(1)

    def careless(extra):
        rows = iter(np.random.default_rng(3).integers(0, 12, 10))

        def predict(photos):
            for photo, many in zip(photos, rows, strict=False):
                yield next(see_masks(wrong_rows=int(many) + extra)(iter([photo])))

        return predict

    first, second = (spec_of("segment"), careless(0)), (spec_of("segment"), careless(1))
    found = compare(first, second, mask_folder, split="all", resamples=200, seed=int(draw.integers(10)))
    difference = found.difference["pixel_accuracy"]
    assert difference.low > 0, "paired, the better model is surely better"
    assert found.better["pixel_accuracy"] == 1.0
    assert found.second.figures["pixel_accuracy"].high > found.first.figures["pixel_accuracy"].low, "unpaired it is not"
    assert "first is better" in found.text()
    json.dumps(found.to_dict(), allow_nan=False)


def test_comparing_models_of_two_tasks_is_refused(mask_folder):
    with pytest.raises(BadInput, match="classify and segment"):
        compare((spec_of("segment"), see_masks()), (spec_of("classify"), see_masks()), mask_folder)


def test_classification_by_hand(tmp_path):
    # 10 pictures of a, 10 of b; brightness is the model's certainty that it is b
    certain = {"a": np.linspace(0.02, 0.62, 10), "b": np.linspace(0.35, 0.95, 10)}
    for label, values in certain.items():
        (tmp_path / label).mkdir()
        for number, value in enumerate(values):
            Image.new("RGB", (4, 4), (round(value * 255),) * 3).save(tmp_path / label / f"{label}{number}x.png")

    def predict(photos):
        for photo in photos:
            score = photo.pixels[0, 0, 0] / 255
            pairs = sorted([(score, "B"), (1 - score, "A")], reverse=True)
            yield Classification(
                tuple(name for _, name in pairs), np.array([p for p, _ in pairs], np.float32), "m", photo.name
            )

    report = evaluate(spec_of("classify", ("B", "A")), tmp_path, predict, split="all", resamples=100)
    wrong = (certain["a"] > 0.5).sum() + (certain["b"] < 0.5).sum()
    assert report.figures["accuracy"].value == pytest.approx(1 - wrong / 20)
    pairs = certain["b"][:, None] - certain["a"][None]
    assert report.figures["auc"].value == pytest.approx(((pairs > 0) + 0.5 * (np.abs(pairs) < 1e-9)).mean())
    assert 0 < report.figures["calibration_error"].value < 0.5
    assert report.figures["balanced_accuracy"].value == pytest.approx(report.figures["accuracy"].value)
    assert {row["label"] for row in report.classes} == {"A", "B"}
    assert sum(row["count"] for row in report.details["calibration"]) == 20


def test_detection_maps_gapped_ids_by_name_and_ignores_classes_the_data_has_not(tmp_path):
    pytest.importorskip("pycocotools")
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in range(6):
        Image.new("RGB", (200, 200)).save(tmp_path / "images" / f"{number}.png")
        images.append({"id": 40 + number, "file_name": f"{number}.png"})
        if number:  # the first image has no object
            box = [10.0 * number, 20, 50, 60]
            annotations.append({"image_id": 40 + number, "category_id": 90, "bbox": box})
    categories = [{"id": 90, "name": "Person"}, {"id": 3, "name": "dog"}]
    (tmp_path / "annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )

    def predict(photos):
        for photo in photos:
            number = int(photo.name[-5])
            right = [10.0 * number, 20, 10.0 * number + 50, 80 if number != 5 else 50]
            boxes = np.array([right, right], np.float32)
            scores = np.array([0.9, 0.8], np.float32)
            yield Detections(boxes, scores, np.array([2, 5]), ("person", "hat"), "m", photo.name, photo.size_hw)

    labels = ("", "dog", "person", "", "", "hat")
    report = evaluate(spec_of("detect", labels), tmp_path, predict, split="all", resamples=50)
    assert report.details["detections"] == 6, "hats are in no category of the data"
    # 4 of 5 persons right at every threshold; the fifth overlaps by half: right at 0.50 alone
    assert report.figures["AR_100"].value == pytest.approx((9 * 0.8 + 1.0) / 10)
    assert report.figures["AP50"].low <= report.figures["AP50"].value <= report.figures["AP50"].high
    assert report.figures["AP_large"].value is None
    assert [row["label"] for row in report.classes] == ["Person"]
    json.dumps(report.to_dict(), allow_nan=False)


class RedEngine:
    """A network of one line: the red channel decides the class."""

    name = "red"
    inputs = ("pixel_values",)

    def run(self, inputs):
        red = inputs["pixel_values"][:, 0, ::4, ::4]
        centres = np.array([0, 100, 200], np.float32)[None, :, None, None] / 255
        return {"logits": (-20 * np.abs(red[:, None] - centres)).astype(np.float32)}

    def close(self):
        pass


def test_the_models_own_task_runs_through_the_predictor(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        mask = np.zeros((64, 48), np.uint8)
        mask[16:48, 8 * number : 8 * number + 24] = 1 + number % 2
        Image.fromarray(np.repeat(mask[..., None] * 100, 3, axis=2)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "labels.json").write_text(json.dumps(list(LABELS)))
    preprocessing = Preprocessing(height=64, width=48, mean=(0, 0, 0), std=(1, 1, 1))
    spec = spec_of("segment").model_copy(update={"preprocessing": preprocessing})
    report = evaluate(spec, tmp_path, predictor(RedEngine(), spec, request_for(spec)), split="all", resamples=10)
    assert report.figures["pixel_accuracy"].value > 0.9, "only borders, upsampled fourfold, may differ"
    assert report.figures["mean_iou"].value > 0.8


def test_a_request_of_no_task_is_refused():
    with pytest.raises(BadInput, match="not by a SeeRequest"):
        predictor(RedEngine(), spec_of("segment"), SeeRequest())
