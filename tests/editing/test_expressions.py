import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesmith.core.errors import BadInput
from imagesmith.editing.expressions import Box, Meet, Name, Point, Sum, parse_region


def shape(node):
    """A tree as nested tuples of words, to compare it at a glance."""
    if isinstance(node, Sum):
        return tuple((sign, shape(part)) for sign, part in node.parts)
    if isinstance(node, Meet):
        return {"meet": [shape(part) for part in node.parts]}
    if isinstance(node, Box):
        return node.xyxy
    if isinstance(node, Point):
        return node.x, node.y
    return f"={node.text}" if node.exact else node.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dress", "dress"),
        ("  upper   body ", "upper body"),
        ("t-shirt", "t-shirt"),
        ("person - hair", (("+", "person"), ("-", "hair"))),
        ("person -hair", (("+", "person"), ("-", "hair"))),
        ("hair+hat", (("+", "hair"), ("+", "hat"))),
        ("a - b + c - d", (("+", "a"), ("-", "b"), ("+", "c"), ("-", "d"))),
        ("a - (b + c)", (("+", "a"), ("-", (("+", "b"), ("+", "c"))))),
        ("skin & box:1,2,3,4.5", {"meet": ["skin", (1.0, 2.0, 3.0, 4.5)]}),
        ("a + b & c", (("+", "a"), ("+", {"meet": ["b", "c"]}))),
        ("Point: 120 , 80", (120.0, 80.0)),
        ("\"chest of drawers, old\" + 'top'", (("+", "=chest of drawers, old"), ("+", "=top"))),
        ("women's shoes", "women's shoes"),
        ("person 2", "person 2"),
        ("boxer shorts", "boxer shorts"),
        ("((dress))", "dress"),
    ],
)
def test_what_people_type(text, expected):
    assert shape(parse_region(text)) == expected


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("dress +", 8, "ends at column 8"),
        ("+ dress", 1, 'has "\\+" at column 1'),
        ("dress ; hat", 7, 'has ";" at column 7'),
        ("dress (hat)", 7, 'has "\\(" at column 7'),
        ("(dress", 7, "ends at column 7"),
        ("hat + box:1,2,3", 7, "column 7 .* needs four numbers"),
        ("hat + point:5", 7, "column 7 .* needs two numbers"),
        ("box:9,9,3,3", 1, "right must be more than left"),
        ("hat - ''", 7, "quotes at column 7"),
        ("a -- b", 4, 'has "-" at column 4'),
    ],
)
def test_mistakes_name_the_column(text, column, reason):
    with pytest.raises(BadInput, match=reason):
        parse_region(text)


@pytest.mark.parametrize("text", ["", "   ", "a" * 1001, "(" * 400 + "a" + ")" * 400])
def test_empty_and_endless(text):
    with pytest.raises(BadInput):
        parse_region(text)


def test_many_terms_are_one_flat_sum():
    assert len(parse_region("+".join("a" * 300)).parts) == 300


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="ab 2.,:+-&()'\"bxopint\té", max_size=40) | st.text(max_size=40))
def test_never_anything_but_a_tree_or_bad_input(text):
    try:
        tree = parse_region(text)
    except BadInput:
        return
    assert isinstance(tree, Name | Box | Point | Meet | Sum)


WORDS = st.sampled_from(["dress", "t-shirt", "left shoe", "box:1,2,3,4", "point:5,6", "'odd, one'"])


def build(children):
    return st.tuples(children, st.sampled_from([" + ", " - ", " & "]), children).map(
        lambda t: f"({t[0]}){t[1]}({t[2]})"
    )


@given(st.recursive(WORDS, build, max_leaves=8))
def test_parentheses_are_the_tree(text):
    tree = parse_region(text)
    if text.startswith("("):
        assert isinstance(tree, Sum | Meet)
        assert len(tree.parts) == 2
    else:
        assert isinstance(tree, Name | Box | Point)
