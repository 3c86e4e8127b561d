import numpy as np

from imagesmith.editing import heads


def test_one_head_is_hair_and_the_face_below_but_not_the_arms(make):
    hair = make.mask((40, 10, 60, 22))
    skin = make.mask((42, 18, 58, 36), (20, 40, 30, 80), (70, 40, 80, 80))
    assert heads.head_boxes(hair, skin) == [(40, 10, 60, 36)]


def test_long_hair_is_cut_at_the_chin(make):
    hair = make.mask((40, 10, 60, 90))
    left, top, right, bottom = heads.head_boxes(hair, make.mask())[0]
    assert (left, top, right) == (40, 10, 60)
    assert 35 < bottom < 50


def test_several_heads_from_left_to_right_and_no_stray(make):
    hair = make.mask((70, 10, 90, 30), (10, 20, 28, 36), (50, 100, 51, 101))
    found = heads.head_boxes(hair, make.mask())
    assert [box[0] for box in found] == [10, 70]


def test_a_parting_does_not_make_two_heads(make):
    hair = make.mask((40, 10, 49, 30), (51, 10, 60, 30))
    assert len(heads.head_boxes(hair, make.mask())) == 1


def test_no_hair_no_head(make):
    assert heads.head_boxes(make.mask(), make.mask((0, 0, 50, 50))) == []


def test_crops_stay_inside_the_photograph_and_are_square_where_it_allows():
    assert heads.crop_around((40, 40, 60, 50), (200, 200)) == (35, 30, 65, 60)
    assert heads.crop_around((0, 0, 20, 20), (200, 200)) == (0, 0, 25, 25)
    assert heads.crop_around((300, 300, 320, 320), (200, 200)) is None


def test_zones_share_the_picture_without_overlap(make):
    boxes = np.array([[0, 0, 60, 120], [40, 0, 100, 120]], np.float32)
    first, second = (heads.zone_of(boxes, index, (120, 100)) for index in (0, 1))
    assert not (first & second).any()
    assert first[60, :50].all()
    assert second[60, 50:].all()
    alone = heads.zone_of(boxes[:1], 0, (120, 100))
    assert alone[:, :66].all()
    assert not alone[:, 68:].any()


def test_persons_are_counted_from_the_left_and_must_meet_the_mask(make):
    found = make.detections([(60, 0, 90, 100), (5, 0, 35, 100), (36, 0, 50, 100)])
    mask = make.mask((10, 10, 20, 20), (70, 10, 80, 20))
    boxes = heads.person_boxes(found, mask)
    assert boxes[:, 0].tolist() == [5, 60]
    assert not len(heads.person_boxes(make.detections([(60, 0, 90, 100)], label="dress"), mask))
    assert not len(heads.person_boxes(make.detections([]), mask))


def test_a_person_detected_twice_counts_once(make):
    found = make.detections([(10, 0, 40, 100), (11, 1, 41, 99), (60, 0, 90, 100)])
    assert heads.person_boxes(found, make.mask((0, 0, 100, 120)))[:, 0].tolist() == [10, 60]


def test_dark_patches_without_skin_are_no_heads_where_a_face_is_seen(make):
    head, helmet, speck = (20, 10, 60, 20), (70, 75, 98, 90), (30, 85, 31, 86)
    hair = make.mask(head, helmet, speck)
    skin = make.mask((25, 20, 55, 35), (25, 86, 40, 96))  # a face, and an arm below the speck
    assert heads.head_boxes(hair, skin) == [(20, 10, 60, 35)]
    assert len(heads.head_boxes(hair, make.mask())) == 2  # seen from behind, both may be heads
