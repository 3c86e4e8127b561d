"""The validation split that training and evaluation share."""

from __future__ import annotations

from imagesmith.evaluation.splits import every_eighth, every_eighth_person, person_of, select


def test_every_eighth_by_stem_whatever_the_order_and_the_suffix():
    images = [f"{number:04}.jpg" for number in range(20)]
    masks = [f"masks/{number:04}.png" for number in reversed(range(20))]
    assert sorted(every_eighth(images)) == ["0000.jpg", "0008.jpg", "0016.jpg"]
    assert sorted(every_eighth(masks)) == ["masks/0000.png", "masks/0008.png", "masks/0016.png"]


def test_stems_decide_where_names_would_sort_otherwise():
    # "a-b.jpg" sorts before "a.jpg" as a name, and after it as a stem
    assert every_eighth(["a-b.jpg", "a.jpg"]) == {"a.jpg"}


def test_both_parts_together_are_all_and_keep_the_order():
    names = [f"{number}.jpg" for number in (5, 3, 9, 1, 7, 0, 2, 8, 6, 4)]
    train, validation = select(names, "train"), select(names, "val")
    assert sorted(train + validation) == sorted(names)
    assert not set(train) & set(validation)
    assert train == [name for name in names if name in train]
    assert select(names, "all") == names


def test_no_person_is_in_both_parts():
    names = [f"{sex}/{sex}{person:02}_{shot:04}.jpg" for sex in "fm" for person in range(20) for shot in range(3)]
    validation = select(names, "val", "person")
    rest = select(names, "train", "person")
    assert not {person_of(name) for name in validation} & {person_of(name) for name in rest}
    assert len(validation) == 3 * 5
    assert {name[0] for name in validation} == {"f", "m"}


def test_a_person_is_the_name_minus_the_last_number():
    assert person_of("male/George_W_Bush_0012.jpg") == "George_W_Bush"
    assert person_of("r2d2_0001.png") == "r2d2"
    assert every_eighth_person(["A_0001.jpg", "A_0002.jpg"]) == {"A_0001.jpg", "A_0002.jpg"}
