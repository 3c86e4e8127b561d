import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesmith.core.errors import BadInput, UnknownRegion
from imagesmith.editing.regions import find_region, resolve_region
from imagesmith.image.decode import Photo


def mask_of(see, photo, text, **options):
    return resolve_region(text, photo, see, **options).mask


# -- words against the rectangles they were made of -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("blouse", ["blouse"]),
        ("Trousers + jeans", None),
        ("upper body", ["blouse"]),
        ("clothes", ["blouse", "jeans"]),
        ("outfit", ["blouse", "jeans", "boots", "hat", "bag"]),
        ("hair + hat", ["hair", "hat"]),
        ("person", ["hair", "hat", "skin", "blouse", "jeans", "boots", "bag"]),
        ('"boots"', ["boots"]),
        ("shoes", ["boots"]),
    ],
)
def test_words_are_the_union_of_their_labels(one, photo, make, text, labels):
    if labels is None:
        with pytest.raises(UnknownRegion, match='No "Trousers" was found in photo'):
            mask_of(one, photo, text)
        return
    clothes = one.clothes()
    expected = np.isin(clothes.labels_hw, [clothes.names.index(label) for label in labels])
    assert np.array_equal(mask_of(one, photo, text), expected)


def test_everything_and_background(one, photo):
    assert mask_of(one, photo, "everything").all()
    person, background = mask_of(one, photo, "person"), mask_of(one, photo, "background")
    assert np.array_equal(person, ~background)


def test_find_region_gives_floats_of_0_and_1(one, photo):
    mask = find_region("blouse", photo, one)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0.0, 1.0}


NAMES = ["blouse", "jeans", "hair", "skin", "person", "background", "everything", "box:20,20,70,70", "box:0,0,100,60"]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("+-&"), st.booleans(), st.sampled_from(NAMES)), min_size=1, max_size=4),
    st.sampled_from(NAMES),
)
def test_expressions_are_set_algebra(make, terms, first):
    photo = Photo(np.zeros((120, 100, 3), np.uint8), name="photo.png")
    see = make.see(make.labels(make.sets["CCP-59"], make.one), boxes=[])

    def alone(name):
        if name.startswith("box:"):
            return make.mask(tuple(int(number) for number in name[4:].split(",")))
        return mask_of(see, photo, name)

    text, expected = f"({first})", alone(first)
    for sign, _, name in terms:
        text = f"({text}) {sign} {name}"
        other = alone(name)
        expected = expected | other if sign == "+" else expected & ~other if sign == "-" else expected & other
    if expected.any():
        assert np.array_equal(mask_of(see, photo, text), expected)
    else:
        with pytest.raises(UnknownRegion, match="covers no pixel"):
            mask_of(see, photo, text)


def test_a_box_is_cut_to_the_photograph(one, photo, make):
    assert np.array_equal(mask_of(one, photo, "box:90,110,500,600"), make.mask((90, 110, 100, 120)))
    with pytest.raises(BadInput, match="covers no pixel of the photograph, which is 100 x 120"):
        mask_of(one, photo, "box:200,10,300,20")


def test_a_point_is_the_connected_region_under_it(one, photo, make):
    found = resolve_region("point:56,105", photo, one)
    assert np.array_equal(found.mask, make.mask((54, 100, 62, 110)))
    assert found.notes == ('point:56,105 is on "boots"',)
    with pytest.raises(BadInput, match="outside the photograph, which is 100 x 120"):
        mask_of(one, photo, "point:100,5")


def test_a_point_where_the_model_is_unsure(photo, make):
    seen = make.labels(make.sets["CCP-59"], make.one)
    labels = seen.labels_hw.copy()
    labels[:10, :10] = 255
    see = make.see(type(seen)(labels, seen.names, seen.model, seen.image))
    with pytest.raises(UnknownRegion, match=r"unsure what is at point:5,5\. In the photograph: "):
        mask_of(see, photo, "point:5,5")


# -- which model answers ---------------------------------------------------------------------------------------------


def test_only_the_models_an_expression_needs_are_asked_and_each_once(one, photo):
    mask_of(one, photo, "everything")
    mask_of(one, photo, "box:1,1,5,5")
    assert not one.asked["clothes"] + one.asked["face"] + one.asked["detections"]
    found = resolve_region("hair + hat + blouse - jeans", photo, one)
    assert (one.asked["clothes"], one.asked["face"], one.asked["detections"]) == (1, 0, 0)
    assert found.models == ("clothes-model",)
    found = resolve_region("lips + left eye + person 1", photo, one)
    assert (one.asked["clothes"], one.asked["face"], one.asked["detections"]) == (2, 1, 1)
    assert found.models == ("face-model", "clothes-model", "detect-model")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("lips", ["u_lip", "l_lip"]),
        ("mouth", ["u_lip", "l_lip", "mouth"]),
        ("eyes", ["l_eye", "r_eye"]),
        ("left eye", ["l_eye"]),
        ("nose", ["nose"]),
        ("face", ["skin", "nose", "l_eye", "r_eye", "u_lip", "l_lip", "mouth"]),
    ],
)
def test_face_parts_come_from_the_head_crop_at_full_size(one, photo, text, labels):
    face = one._face
    expected = np.isin(face.labels_hw, [face.names.index(label) for label in labels])
    assert np.array_equal(mask_of(one, photo, text), expected)
    left, top, right, bottom = one.crops[0]
    assert left <= 40 and top <= 8 and right >= 60 and bottom >= 34  # noqa: PT018
    assert (right - left) * (bottom - top) < 0.3 * 100 * 120


def test_head_joins_both_models(one, photo):
    clothes, face = one._clothes, one._face
    expected = np.isin(clothes.labels_hw, [clothes.names.index(name) for name in ("hair", "hat")])
    expected |= face.labels_hw > 0
    assert np.array_equal(mask_of(one, photo, "head"), expected)


def test_a_face_label_of_the_clothes_model_answers_first(photo, make):
    see = make.see(make.labels(make.sets["ATR-18"], {"Face": [(44, 18, 56, 34)], "Hair": [(40, 10, 60, 18)]}))
    assert np.array_equal(mask_of(see, photo, "face"), make.mask((44, 18, 56, 34)))
    assert not see.asked["face"]


def test_without_hair_the_crop_is_the_upper_part_of_the_persons_box(photo, make):
    clothes = make.labels(make.sets["CCP-59"], {"blouse": [(36, 34, 64, 64)]})
    face = make.labels(make.sets["CelebAMask-19"], make.face_parts, model="face-model")
    see = make.see(clothes, face, [(30, 10, 70, 118)])
    mask_of(see, photo, "nose")
    assert see.crops == [(35, 5, 65, 35)]


def test_with_neither_hair_nor_person_the_face_model_gets_all_of_it(photo, make):
    see = make.see(
        make.labels(make.sets["CCP-59"], {}), make.labels(make.sets["CelebAMask-19"], make.face_parts), boxes=[]
    )
    assert mask_of(see, photo, "lips").any()
    assert see.crops == [(0, 0, 100, 120)]


def test_the_named_model_answers_first_where_it_knows_the_word(photo, make):
    own = make.labels(
        ("wall", "lamp", "person"), {"lamp": [(0, 0, 9, 9)], "person": [(30, 10, 70, 110)]}, model="rooms"
    )
    see = make.see(make.labels(make.sets["CCP-59"], make.one), own=own)
    assert resolve_region("lamp", photo, see).models == ("rooms",)
    assert resolve_region("blouse", photo, see).models == ("clothes-model",)
    assert np.array_equal(mask_of(see, photo, "person"), make.mask((30, 10, 70, 110)))
    own = make.labels(("wall", "lamp"), {}, model="rooms")
    with pytest.raises(UnknownRegion, match=r'No "lamp" was found in photo\.png\. In the photograph: wall 100\.0%\.'):
        mask_of(make.see(own=own), photo, "lamp")


def test_a_named_clothes_model_replaces_the_usual_one(photo, make):
    own = make.labels(make.sets["ATR-18"], {"Dress": [(30, 30, 70, 90)], "Hair": [(40, 10, 60, 30)]}, model="atr")
    see = make.see(own=own)
    assert np.array_equal(mask_of(see, photo, "person"), make.mask((30, 30, 70, 90), (40, 10, 60, 30)))
    assert np.array_equal(mask_of(see, photo, "background"), ~mask_of(see, photo, "person"))


def test_a_wider_label_is_taken_and_the_notes_say_so(photo, make):
    see = make.see(make.labels(make.sets["ATR-18"], {"Upper-clothes": [(30, 30, 70, 60)]}))
    found = resolve_region("hoodie", photo, see)
    assert found.notes == ('clothes-model has no label "hoodie"; "upper clothes" was taken',)


# -- left, right, persons ----------------------------------------------------------------------------------------------


def test_left_is_the_wearers_left_at_the_right_of_the_picture(one, photo, make):
    found = resolve_region("left shoe", photo, one)
    assert np.array_equal(found.mask, make.mask((54, 100, 62, 110)))
    assert "the wearer's left, the part at the right of the picture" in found.notes[0]
    assert np.array_equal(mask_of(one, photo, "right boot"), make.mask((38, 100, 46, 110)))
    assert np.array_equal(mask_of(one, photo, "leftmost shoe"), make.mask((38, 100, 46, 110)))
    assert np.array_equal(mask_of(one, photo, "rightmost boots"), make.mask((54, 100, 62, 110)))


def test_labels_with_a_side_of_their_own_keep_its_meaning(photo, make):
    # crossed legs: the label knows better than the place
    see = make.see(
        make.labels(make.sets["ATR-18"], {"Left-shoe": [(10, 100, 20, 110)], "Right-shoe": [(50, 100, 60, 110)]})
    )
    assert np.array_equal(mask_of(see, photo, "left shoe"), make.mask((10, 100, 20, 110)))
    assert np.array_equal(mask_of(see, photo, "leftmost shoe"), make.mask((10, 100, 20, 110)))
    assert mask_of(see, photo, "shoes").sum() == 200


@pytest.mark.parametrize("boots", [[(38, 100, 62, 110)], [(5, 100, 12, 110), (30, 100, 37, 110), (60, 100, 67, 110)]])
def test_sides_need_exactly_two_parts(photo, make, boots):
    see = make.see(make.labels(make.sets["CCP-59"], {"boots": boots}))
    with pytest.raises(UnknownRegion, match=f"exactly two separate parts to choose from, but {len(boots)} were found"):
        mask_of(see, photo, "left boot")


def test_specks_are_no_parts(photo, make):
    see = make.see(make.labels(make.sets["CCP-59"], {"boots": [(5, 100, 25, 110), (60, 100, 80, 110), (90, 5, 91, 6)]}))
    assert np.array_equal(mask_of(see, photo, "right boot"), make.mask((5, 100, 25, 110)))


@pytest.fixture
def two(make):
    """Two persons side by side, each with hair, a dress and boots; the left one is a little smaller."""
    left, right = 10, 60
    regions = {
        "hair": [(left + 8, 20, left + 22, 34), (right + 8, 10, right + 22, 26)],
        "dress": [(left, 40, left + 30, 90), (right, 36, right + 30, 92)],
        "boots": [
            (left + 2, 95, left + 8, 105), (left + 20, 95, left + 26, 105),
            (right + 2, 95, right + 8, 105), (right + 20, 95, right + 26, 105),
        ],
    }  # fmt: skip
    face = {"u_lip": [(left + 12, 30, left + 16, 32), (right + 12, 22, right + 16, 24)]}
    return make.see(
        make.labels(make.sets["CCP-59"], regions),
        make.labels(make.sets["CelebAMask-19"], face, model="face-model"),
        [(58, 8, 92, 108), (8, 18, 42, 108)],  # the best score first, which is not the leftmost
    )


def test_persons_are_counted_from_the_left(two, photo, make):
    first = mask_of(two, photo, "person 1")
    assert np.array_equal(first, mask_of(two, photo, "person") & make.mask((0, 0, 50, 120)))
    assert np.array_equal(mask_of(two, photo, "person 2"), mask_of(two, photo, "person") & ~first)
    assert np.array_equal(mask_of(two, photo, "woman 2"), mask_of(two, photo, "person 2"))


def test_all_persons_unless_one_is_asked_for(two, photo, make):
    assert mask_of(two, photo, "dress").sum() == 30 * 50 + 30 * 56
    assert np.array_equal(mask_of(two, photo, "dress", person=2), make.mask((60, 36, 90, 92)))
    assert np.array_equal(mask_of(two, photo, "left boot", person=1), make.mask((30, 95, 36, 105)))
    with pytest.raises(UnknownRegion, match="4 were found"):
        mask_of(two, photo, "left boot")


def test_every_head_is_looked_at_or_only_one(two, photo, make):
    assert mask_of(two, photo, "lips").sum() == 16
    assert two.asked["face"] == 2
    assert np.array_equal(mask_of(two, photo, "lips", person=1), make.mask((22, 30, 26, 32)))
    assert two.asked["face"] == 3


def test_a_person_who_is_not_there(two, one, photo):
    with pytest.raises(
        UnknownRegion, match=r"No person 3 was found in photo\.png, only 2 were\. In the photograph: dress"
    ):
        mask_of(two, photo, "person 3")
    with pytest.raises(UnknownRegion, match="only 1 was"):
        mask_of(one, photo, "hair", person=2)


def test_person_1_needs_no_detection(photo, make):
    see = make.see(make.labels(make.sets["CCP-59"], make.one), boxes=[])
    found = resolve_region("person 1", photo, see)
    assert np.array_equal(found.mask, mask_of(see, photo, "person"))
    assert "detected no person" in found.notes[0]


# -- what is said when nothing is found --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blous", r'No model here knows the region "blous" \(column 1\)\. Did you mean "blouse"'),
        ("hair + skrt", r'"skrt" \(column 8\)'),
        ("shirt", r'No "shirt" was found in photo\.png\. Did you mean "blouse"\? In the photograph: '),
        ("person-hair", r'put spaces around the minus: "person - hair"'),
        ("dress", r"In the photograph: jeans 7\.2%, blouse 7\.0%, "),
        ('"trousers"', r'No "trousers" was found'),
        ("glasses", r'No "glasses" was found'),
    ],
)
def test_near_misses_and_the_list_of_what_is_there(one, photo, text, message):
    with pytest.raises(UnknownRegion, match=message):
        mask_of(one, photo, text)


def test_an_empty_photograph(photo, make):
    see = make.see(make.labels(make.sets["CCP-59"], {}), boxes=[])
    with pytest.raises(UnknownRegion, match="Nothing but background was found in the photograph"):
        mask_of(see, photo, "person")


def test_a_syntax_error_costs_no_model(one, photo):
    with pytest.raises(BadInput, match="ends at column"):
        mask_of(one, photo, "hair +")
    assert not one.asked
