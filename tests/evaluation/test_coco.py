"""The twelve figures against pycocotools and faster-coco-eval, and resampling against repeated images."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest

from imagesmith.core.errors import BadInput
from imagesmith.evaluation.coco import NAMES, coco_figures, weighted_figures
from imagesmith.evaluation.matching import assign, iou_xywh, match


def pycocotools_figures(truth: dict[str, Any], found: list[dict[str, Any]]) -> np.ndarray:
    api = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        reference = api.COCO()
        reference.dataset = copy.deepcopy(truth)
        reference.createIndex()
        judge = cocoeval.COCOeval(reference, reference.loadRes(copy.deepcopy(found)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return np.where(judge.stats > -1, judge.stats, np.nan)


def ours(truth: dict[str, Any], found: list[dict[str, Any]]) -> np.ndarray:
    return np.array(list(coco_figures(match(truth, found)).figures.values()))


@pytest.mark.parametrize("seed", range(8))
def test_twelve_figures_equal_pycocotools_to_the_last_bit(make_coco, seed):
    truth, found = make_coco(seed)
    assert np.array_equal(ours(truth, found), pycocotools_figures(truth, found), equal_nan=True)


def test_more_than_a_hundred_detections_of_one_class_are_cut_as_in_pycocotools(make_coco):
    truth, found = make_coco(99, images=4, most=900)
    most = max(
        sum(row["image_id"] == image["id"] and row["category_id"] == 2 for row in found) for image in truth["images"]
    )
    assert most > 100
    assert np.array_equal(ours(truth, found), pycocotools_figures(truth, found), equal_nan=True)


def test_figures_equal_faster_coco_eval(make_coco):
    library = pytest.importorskip("faster_coco_eval")
    truth, found = make_coco(3)
    reference = library.COCO(copy.deepcopy(truth))
    judge = library.COCOeval_faster(reference, reference.loadRes(copy.deepcopy(found)), iouType="bbox")
    judge.run()
    theirs = np.where(judge.all_stats[:12] > -1, judge.all_stats[:12], np.nan)
    # Its precisions differ from pycocotools' by one unit in the last place here and there.
    np.testing.assert_allclose(ours(truth, found), theirs, rtol=0, atol=1e-15)


def test_a_wrong_matching_would_be_noticed(make_coco):
    """Negative control: treating a crowd as a single object changes the figures."""
    truth, found = make_coco(0)
    without = copy.deepcopy(truth)
    for annotation in without["annotations"]:
        annotation["iscrowd"] = 0
    assert not np.array_equal(ours(truth, found), ours(without, found), equal_nan=True)


def test_figures_by_category_equal_pycocotools_on_that_category_alone(make_coco):
    truth, found = make_coco(5)
    figures = coco_figures(match(truth, found)).by_category
    for category in (2, 5, 8):
        alone = {
            "images": truth["images"],
            "categories": [item for item in truth["categories"] if item["id"] == category],
            "annotations": [item for item in truth["annotations"] if item["category_id"] == category],
        }
        stats = pycocotools_figures(alone, [row for row in found if row["category_id"] == category])
        assert figures[category] == {"AP": stats[0], "AP50": stats[1], "AR": stats[8]}
    assert np.isnan(figures[11]["AP"]), "class 11 occurs in no image"


def test_unweighted_resample_is_the_plain_figure(make_coco):
    truth, found = make_coco(1)
    matches = match(truth, found)
    drawn = weighted_figures(matches, np.ones((1, len(matches.image_ids))))
    for name, value in coco_figures(matches).figures.items():
        np.testing.assert_allclose(drawn[name][0], value, atol=1e-14, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_resample_equals_pycocotools_on_the_images_repeated(make_coco, seed):
    truth, found = make_coco(seed)
    draw = np.random.default_rng(seed)
    for row in found:  # distinct scores: pycocotools orders ties by image
        row["score"] = float(draw.random())
    matches = match(truth, found)
    weights = draw.multinomial(len(matches.image_ids), np.full(len(matches.image_ids), 1 / len(matches.image_ids)))
    repeated: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    rows = []
    for image, times in zip(matches.image_ids, weights, strict=True):
        for copy_number in range(times):
            identity = image * 100 + copy_number
            repeated["images"].append({"id": identity})
            rows += [{**row, "image_id": identity} for row in found if row["image_id"] == image]
            for item in truth["annotations"]:
                if item["image_id"] == image:
                    number = len(repeated["annotations"]) + 1
                    repeated["annotations"].append({**item, "image_id": identity, "id": number})
    expected = pycocotools_figures(repeated, rows)
    drawn = weighted_figures(matches, weights[None].astype(float))
    np.testing.assert_allclose([drawn[name][0] for name in NAMES], expected, atol=1e-12, rtol=0)


def test_no_detection_at_all_is_zero_and_no_object_at_all_is_unknown(make_coco):
    truth, found = make_coco(2)
    assert ours(truth, [])[0] == 0
    assert np.isnan(ours({**truth, "annotations": []}, found)).all()


def test_missing_area_and_crowd_flag_are_filled_in_and_id_zero_is_an_object(make_coco):
    truth, found = make_coco(4)
    bare = copy.deepcopy(truth)
    for number, annotation in enumerate(bare["annotations"]):
        annotation.pop("area")
        annotation.pop("iscrowd")
        annotation["id"] = number
    whole = copy.deepcopy(bare)
    for annotation in whole["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        annotation["iscrowd"] = 0
        annotation["id"] += 1
    assert np.array_equal(ours(bare, found), pycocotools_figures(whole, found), equal_nan=True)


def test_detection_of_an_unknown_image_is_refused(make_coco):
    truth, _ = make_coco(0)
    with pytest.raises(BadInput, match="names image or category 999"):
        match(truth, [{"image_id": 999, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0.5}])


def test_of_equal_overlaps_the_later_object_is_met_and_a_crowd_stays_free():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    overlap = iou_xywh(boxes, boxes[:2], np.array([False, True]))
    met, skipped = assign(overlap, np.tile([False, True], (4, 1)), np.array([False, True]))
    assert met.all(), "the second and third detections fall into the crowd"
    assert skipped[0, 0].tolist() == [False, True, True]
