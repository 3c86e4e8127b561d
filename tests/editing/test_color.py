import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesmith.core.errors import BadInput
from imagesmith.editing import color


def slow_oklab(rgb):
    """OKLab of one colour in plain Python and double precision, through the published XYZ matrices."""

    def linear(byte):
        value = byte / 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(byte)) for byte in rgb)
    x = 0.4123907993 * red + 0.3575843394 * green + 0.1804807884 * blue
    y = 0.2126390059 * red + 0.7151686788 * green + 0.0721923154 * blue
    z = 0.0193308187 * red + 0.1191947798 * green + 0.9505321522 * blue
    cones = [
        math.copysign(abs(value) ** (1 / 3), value)
        for value in (
            0.8189330101 * x + 0.3618667424 * y - 0.1288597137 * z,
            0.0329845436 * x + 0.9293118715 * y + 0.0361456387 * z,
            0.0482003018 * x + 0.2643662691 * y + 0.6338517070 * z,
        )
    ]
    rows = [
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    ]
    return [sum(weight * cone for weight, cone in zip(row, cones, strict=True)) for row in rows]


def random_colors(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3), dtype=np.uint8)


def test_oklab_equals_the_slow_formula_through_xyz():
    colors = np.concatenate([random_colors(300), [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 128]]]).astype(
        np.uint8
    )
    # the two published pairs of matrices agree to a few units in the fourth place
    np.testing.assert_allclose(color.oklab_from_srgb(colors), [slow_oklab(rgb) for rgb in colors], atol=6e-4)


def test_oklab_of_known_colors():
    # lightness, a, b as browsers print them for CSS
    known = {"red": (0.628, 0.225, 0.126), "lime": (0.866, -0.234, 0.179), "blue": (0.452, -0.032, -0.312)}
    for name, expected in known.items():
        found = color.oklab_from_srgb(np.array([color.parse_color(name)], np.uint8))[0]
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_every_gray_and_many_colors_come_back_to_the_byte():
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    colors = np.concatenate([grays, random_colors(20_000)])
    assert np.array_equal(color.srgb_from_oklab(color.oklab_from_srgb(colors)), colors)


def test_lightness_alone_equals_the_first_of_three():
    colors = random_colors(1000).reshape(10, 100, 3)
    np.testing.assert_allclose(color.lightness_of_srgb(colors), color.oklab_from_srgb(colors)[..., 0], atol=1e-6)


def test_colors_beyond_the_screen_become_paler_and_keep_lightness_and_hue():
    rng = np.random.default_rng(1)
    hue = rng.uniform(0, 2 * np.pi, 500)
    lightness = rng.uniform(0.2, 0.9, 500)
    lab = np.stack([lightness, 0.35 * np.cos(hue), 0.35 * np.sin(hue)], axis=-1).astype(np.float32)
    found = color.oklab_from_srgb(color.srgb_from_oklab(lab))
    np.testing.assert_allclose(found[:, 0], lightness, atol=0.01)
    chroma = np.hypot(found[:, 1], found[:, 2])
    assert (chroma < 0.35).all()
    turn = np.angle(np.exp(1j * (np.arctan2(found[:, 2], found[:, 1]) - hue)))
    assert np.abs(turn).max() < 0.05
    # negative control: clipping each channel, as is often done, turns the hue much farther
    clipped = color.oklab_from_srgb(color.srgb_from_linear(color.linear_from_oklab(lab)))
    turned = np.angle(np.exp(1j * (np.arctan2(clipped[:, 2], clipped[:, 1]) - hue)))
    assert np.abs(turned).max() > 0.3


def test_greatest_chroma_is_on_the_edge_of_the_screen():
    lightness = np.linspace(0.1, 0.95, 30, dtype=np.float32)
    hue = np.array([math.cos(1.0), math.sin(1.0)], np.float32)
    chroma = color.greatest_chroma(lightness, hue)

    def light(factor):
        lab = np.concatenate([lightness[:, None], factor * chroma[:, None] * hue], axis=1).astype(np.float32)
        return color.linear_from_oklab(lab)

    inside, beyond = light(0.99), light(1.03)
    assert inside.min() > -1e-3
    assert inside.max() < 1 + 1e-3
    assert ((beyond.min(axis=1) < 0) | (beyond.max(axis=1) > 1)).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crimson", (220, 20, 60)),
        ("Light Sea-Green", (32, 178, 170)),
        ("#fff", (255, 255, 255)),
        (" #7A1f2B ", (122, 31, 43)),
        ("rgb(1,2,3)", (1, 2, 3)),
        ("rgb(100%, 0%, 50%)", (255, 0, 128)),
        ("burgundy", (128, 0, 32)),
        ("navy blue", (0, 0, 128)),
    ],
)
def test_colors_people_type(text, expected):
    assert color.parse_color(text) == expected


def test_a_near_miss_suggests_the_color():
    with pytest.raises(BadInput, match=r'"crimsn" is no colour\. Did you mean "crimson"'):
        color.parse_color("crimsn")


@pytest.mark.parametrize(
    "text", ["", "#12", "#12345678", "rgb(256,0,0)", "rgb(-1,2,3)", "hsl(0,0%,0%)", "none", "1,2,3"]
)
def test_what_is_no_color_is_refused(text):
    with pytest.raises(BadInput, match="is no colour"):
        color.parse_color(text)


@given(st.text(max_size=30))
def test_any_text_is_a_color_or_bad_input(text):
    try:
        values = color.parse_color(text)
    except BadInput:
        assert not color.is_color(text)
    else:
        assert len(values) == 3
        assert all(0 <= value <= 255 for value in values)
