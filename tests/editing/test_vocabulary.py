import pytest

from imagesmith.editing.vocabulary import plain_word, read_vocabulary
from imagesmith.image.results import is_background


@pytest.fixture(scope="module")
def words():
    return read_vocabulary()


def names_of(words, text, names):
    meaning = words.meaning(text, names)
    return None if meaning is None else [names[index] for index in meaning.ids]


def test_every_label_of_every_set_is_found_by_its_own_name(words, make):
    for label_set, names in make.sets.items():
        for label in names:
            if label_set == "CelebAMask-19" or is_background(label):
                continue
            assert label in names_of(words, label, names), (label_set, label)
            assert names_of(words, label.upper().replace("-", "_"), names) == names_of(words, label, names)


@pytest.mark.parametrize(
    ("text", "label_set", "expected"),
    [
        ("trousers", "CCP-59", ["pants"]),
        ("Upper_Body", "ATR-18", ["Upper-clothes"]),
        ("shirt", "CCP-59", ["shirt"]),
        ("shirt", "LIP-20", ["Upper-clothes"]),
        ("coat", "LIP-20", ["Coat"]),
        ("coat", "ATR-18", ["Upper-clothes"]),
        ("jumpsuit", "LIP-20", ["Jumpsuits"]),
        ("glove", "CCP-59", ["gloves"]),
        ("shoes", "ATR-18", ["Left-shoe", "Right-shoe"]),
        ("left shoe", "LIP-20", ["Left-shoe"]),
        ("right boot", "ATR-18", ["Right-shoe"]),
        ("legs", "ATR-18", ["Left-leg", "Right-leg"]),
        ("skin", "ATR-18", ["Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm"]),
        ("skin", "CCP-59", ["skin"]),
        ("lips", "CelebAMask-19", ["u_lip", "l_lip"]),
        ("lower lip", "CelebAMask-19", ["l_lip"]),
        ("left eye", "CelebAMask-19", ["l_eye"]),
        ("eyebrows", "CelebAMask-19", ["l_brow", "r_brow"]),
        ("right eyebrow", "CelebAMask-19", ["r_brow"]),
        ("mouth", "CelebAMask-19", ["mouth", "u_lip", "l_lip"]),
        ("teeth", "CelebAMask-19", ["mouth"]),
        ("spectacles", "CelebAMask-19", ["eye_g"]),
        ("earring", "CelebAMask-19", ["ear_r"]),
        ("clothing", "CelebAMask-19", ["cloth"]),
        ("lips", "CCP-59", None),
        ("face", "CCP-59", None),
        ("drss", "CCP-59", None),
        ("", "CCP-59", None),
    ],
)
def test_words_of_the_label_sets(words, make, text, label_set, expected):
    assert names_of(words, text, make.sets[label_set]) == expected


def test_groups_are_unions_of_their_parts(words, make):
    names = make.sets["CCP-59"]

    def labels(text):
        return set(names_of(words, text, names))

    assert {"blouse", "shirt", "t-shirt", "sweater", "top"} <= labels("top") < labels("upper body") < labels("clothes")
    assert "coat" in labels("upper body") - labels("top")
    assert {"jeans", "skirt", "shorts"} <= labels("lower body") < labels("clothes")
    assert not labels("upper body") & labels("lower body")
    assert {"boots", "sandals", "shoes"} <= labels("shoes")
    assert not labels("clothes") & (labels("shoes") | {"skin", "hair", "background"})
    assert labels("clothes") | labels("shoes") | labels("bag") <= labels("outfit")
    assert labels("outfit") == set(names) - {"background", "skin", "hair"}


def test_quoted_means_the_label_alone(words, make):
    names = make.sets["CCP-59"]
    assert [names[index] for index in words.exact("Top", names).ids] == ["top"]
    assert words.exact("trousers", names) is None


def test_sides_without_labels_of_their_own_are_left_to_the_picture(words, make):
    found = words.meaning("left shoe", make.sets["CCP-59"])
    assert found.side == "left"
    assert words.meaning("left shoe", make.sets["ATR-18"]).side is None
    assert words.meaning("leftmost shoe", make.sets["ATR-18"]).side == "leftmost"


def test_wider_words_say_so(words, make):
    assert words.meaning("hoodie", make.sets["ATR-18"]).wider
    assert not words.meaning("hoodie", make.sets["CCP-59"]).wider


def test_labels_of_an_unknown_model_need_no_entry(words):
    names = ("wall", "Floor-lamp", "person", "body of water")
    assert names_of(words, "floor lamp", names) == ["Floor-lamp"]
    assert names_of(words, "people", names) == ["person"]
    assert names_of(words, "dress", names) is None


def test_a_near_miss_or_a_relative_is_suggested(words):
    assert '"skirt"' in words.suggestion("skrit", ["skin", "skirt"])
    assert '"blouse"' in words.suggestion("shirt", ["skin", "hair", "blouse"])
    assert words.suggestion("qqqq", ["skin"]) == ""


def test_the_file_is_consistent(words):
    assert not set(words.spellings) & set(words.spellings.values())  # one step leads to the word
    for word in [*words.groups, *words.wider, *words.joined, *words.face_first, *words.face_after]:
        assert word not in words.spellings, word
    for group, members in words.groups.items():
        for member in members:
            assert member.removesuffix("?") not in words.spellings, (group, member)
    for word in words.words:
        assert words.knows(word), word
        assert plain_word(word) == plain_word(word.upper())
