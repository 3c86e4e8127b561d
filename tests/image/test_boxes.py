import numpy as np
import pytest

from imagesmith.core.errors import BadInput
from imagesmith.image import boxes


def random_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(0, 30, (count, 2))], axis=1)


def slow_iou(a, b) -> tuple[float, float, float]:
    """Intersection, union and enclosing area of two boxes, one number at a time."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return inter, union, hull


def test_conversions_go_there_and_back():
    corners = random_boxes(40, 0)
    assert np.allclose(boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(corners)), corners)
    assert np.allclose(boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(corners)), corners)
    assert boxes.xyxy_to_cxcywh(np.array([[10.0, 20, 30, 60]])).tolist() == [[20, 40, 20, 40]]
    assert boxes.xyxy_to_xywh(np.array([[10.0, 20, 30, 60]])).tolist() == [[10, 20, 20, 40]]
    stacked = corners.reshape(4, 10, 4)
    assert np.allclose(boxes.xyxy_to_cxcywh(stacked).reshape(-1, 4), boxes.xyxy_to_cxcywh(corners))


def test_overlaps_equal_the_slow_loops():
    first, second = random_boxes(30, 1), random_boxes(20, 2)
    second[:5] = first[:5]
    plain, general = boxes.iou(first, second), boxes.generalized_iou(first, second)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            inter, union, hull = slow_iou(a, b)
            assert plain[i, j] == pytest.approx(inter / union, abs=1e-12)
            assert general[i, j] == pytest.approx(inter / union - (hull - union) / hull, abs=1e-12)
    assert (general <= plain + 1e-12).all()
    assert general.min() < 0


def test_empty_boxes_overlap_nothing():
    points = np.array([[3.0, 3, 3, 3], [5, 5, 4, 4]])
    assert boxes.iou(points, points).tolist() == [[0, 0], [0, 0]]
    assert np.isfinite(boxes.generalized_iou(points, points)).all()
    assert boxes.area(points).tolist() == [0, 0]
    assert boxes.iou(np.zeros((0, 4)), points).shape == (0, 2)


def test_integers_and_float32_are_kept_exact():
    whole = np.array([[0, 0, 40_000, 40_000]], np.int64)
    assert boxes.iou(whole, whole)[0, 0] == 1
    assert boxes.iou(whole.astype(np.float32), whole.astype(np.float32)).dtype == np.float32


def slow_nms(corners, scores, threshold, labels):
    keep = []
    for i in sorted(range(len(scores)), key=lambda k: -scores[k]):
        if all(
            labels[i] != labels[k]
            or slow_iou(corners[i], corners[k])[0] / slow_iou(corners[i], corners[k])[1] <= threshold
            for k in keep
        ):
            keep.append(i)
    return keep


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_equals_the_slow_loops(threshold):
    rng = np.random.default_rng(3)
    corners, scores, labels = random_boxes(80, 4), rng.random(80), rng.integers(0, 3, 80)
    assert boxes.nms(corners, scores, threshold).tolist() == slow_nms(corners, scores, threshold, [0] * 80)
    assert boxes.nms(corners, scores, threshold, labels).tolist() == slow_nms(corners, scores, threshold, labels)


def test_soft_nms_equals_the_slow_loops():
    rng = np.random.default_rng(5)
    corners, scores, labels = random_boxes(40, 6), rng.random(40), rng.integers(0, 2, 40)
    left, expected = dict(enumerate(scores)), []
    while left:
        best = max(left, key=left.get)
        score = left.pop(best)
        if score < 0.05:
            break
        expected.append((best, score))
        for other in left:
            if labels[other] == labels[best]:
                inter, union, _ = slow_iou(corners[best], corners[other])
                left[other] *= np.exp(-((inter / union) ** 2) / 0.4)
    indices, lowered = boxes.soft_nms(corners, scores, sigma=0.4, least_score=0.05, labels=labels)
    assert indices.tolist() == [index for index, _ in expected]
    assert np.allclose(lowered, [score for _, score in expected])
    assert (np.diff(lowered) <= 0).all()


def test_nothing_to_suppress():
    none = np.zeros((0, 4)), np.zeros(0)
    assert boxes.nms(*none).tolist() == []
    assert [part.tolist() for part in boxes.soft_nms(*none)] == [[], []]


def test_clip_boxes():
    assert boxes.clip_boxes(np.array([[-5.0, 2, 90, 90]]), (40, 60)).tolist() == [[0, 2, 60, 40]]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(BadInput, match=r"\(3, 4\) and \(2,\)"):
        boxes.nms(np.zeros((3, 4)), np.zeros(2))
    with pytest.raises(BadInput, match="one label per box"):
        boxes.soft_nms(np.zeros((3, 4)), np.zeros(3), labels=np.zeros(2))
