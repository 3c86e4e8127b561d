"""Exact labels: torch's own upsampling and argmax is the oracle, on every pixel."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesmith.core.errors import BadInput, EngineFailed
from imagesmith.vision import upsample
from imagesmith.vision.certainty import certainty, grid_uncertainty
from imagesmith.vision.upsample import rounding_margin, sample_axis, upsample_labels

FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def upsampled_by_torch(logits: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    values = torch.from_numpy(logits)[None]
    return torch.nn.functional.interpolate(values, size=size_hw, mode="bilinear", align_corners=False)[0].numpy()


def smooth_logits(classes: int, height: int, width: int, *, seed: int = 0, detail: int = 8) -> np.ndarray:
    """Like a network's: regions of a few lattice points, a little noise."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 4, (classes, max(1, height // detail), max(1, width // detail))).astype(np.float32)
    values = torch.nn.functional.interpolate(torch.from_numpy(coarse)[None], size=(height, width), mode="bicubic")[0]
    return values.numpy() + random.normal(0, 0.05, values.shape).astype(np.float32)


def assert_same(logits: np.ndarray, size_hw: tuple[int, int], *, to_the_bit: bool = True) -> None:
    """Labels must equal torch's; only where another order of additions is known may rounding decide a tie."""
    full = upsampled_by_torch(logits, size_hw)
    found, expected = upsample_labels(logits, size_hw), full.argmax(axis=0)
    assert found.dtype == np.uint8
    assert found.shape == size_hw
    if to_the_bit and FUSED:
        np.testing.assert_array_equal(found, expected)
        return
    gap = full.max(axis=0) - np.take_along_axis(full, found[None].astype(np.int64), 0)[0]
    assert gap.max() <= rounding_margin(logits)


@pytest.mark.parametrize(
    ("classes", "grid_hw", "size_hw"),
    [
        (18, (128, 128), (540, 960)),
        (19, (64, 64), (333, 257)),
        (59, (96, 64), (400, 311)),
        (7, (33, 57), (1000, 91)),
        (5, (16, 16), (17, 16)),
        (4, (160, 96), (161, 700)),
    ],
)
@pytest.mark.parametrize("detail", [4, 16])
def test_labels_equal_torch_on_every_pixel(
    classes: int, grid_hw: tuple[int, int], size_hw: tuple[int, int], detail: int
) -> None:
    assert_same(smooth_logits(classes, *grid_hw, detail=detail), size_hw)


@pytest.mark.parametrize("size_hw", [(7, 9), (40, 13), (100, 64), (64, 100), (1, 1), (1, 50), (50, 1), (64, 64)])
def test_labels_equal_torch_when_the_photograph_is_smaller(size_hw: tuple[int, int]) -> None:
    # torch takes another kernel, with another order of additions, where the output is small.
    assert_same(smooth_logits(18, 64, 64), size_hw, to_the_bit=False)


@pytest.mark.parametrize("grid_hw", [(1, 1), (1, 8), (8, 1), (2, 2)])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (300, 200), (1031, 3)])
def test_smallest_grids(grid_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    assert_same(smooth_logits(6, *grid_hw, detail=1), size_hw, to_the_bit=False)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 99),
)
def test_any_shape(classes: int, grid_h: int, grid_w: int, height: int, width: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(classes, grid_h, grid_w)).astype(np.float32)
    assert_same(logits, (height, width), to_the_bit=False)


def test_noise_takes_the_dense_path_and_is_exact() -> None:
    logits = np.random.default_rng(1).normal(size=(18, 40, 40)).astype(np.float32)
    assert_same(logits, (333, 500))


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_ties_go_to_the_lower_class(levels: int) -> None:
    """Few distinct values: equal logits at corners, and equal values between them."""
    random = np.random.default_rng(levels)
    logits = random.integers(0, levels, (6, 24, 24)).astype(np.float32)
    assert_same(logits, (192, 384))
    assert (upsample_labels(np.zeros((5, 6, 6), np.float32), (50, 70)) == 0).all()


def near_ties(classes: int = 18, side: int = 48) -> np.ndarray:
    """One class leads everywhere, but by about one rounding of a large value."""
    random = np.random.default_rng(3)
    logits = np.tile(random.normal(0, 30, (1, side, side)).astype(np.float32), (classes, 1, 1))
    for index in range(1, classes):
        logits[index] = np.nextafter(logits[index - 1], np.float32(np.inf))
    return logits


def test_leads_of_one_rounding_are_computed() -> None:
    assert_same(near_ties(), (432, 720))


def test_without_the_margin_rounding_makes_wrong_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the case above really needs the margin."""
    monkeypatch.setattr(upsample, "rounding_margin", lambda logits: np.float32(0))
    expected = upsampled_by_torch(near_ties(), (432, 720)).argmax(axis=0)
    assert (upsample_labels(near_ties(), (432, 720)) != expected).any()


@pytest.mark.skipif(not FUSED, reason="torch rounds differently on processors without fused multiply-add")
@pytest.mark.parametrize(("size_in", "size_out"), [(128, 1080), (128, 1920), (37, 1001), (97, 160), (160, 97), (5, 5)])
def test_axis_equals_torch_to_the_last_bit(size_in: int, size_out: int) -> None:
    pulses = np.eye(size_in, dtype=np.float32)[:, None]
    weights = upsampled_by_torch(pulses, (1, size_out))[:, 0]
    axis, found = sample_axis(size_in, size_out), np.zeros((size_in, size_out), np.float32)
    np.add.at(found, (axis.low, np.arange(size_out)), axis.low_weight)
    np.add.at(found, (axis.high, np.arange(size_out)), axis.high_weight)
    np.testing.assert_array_equal(found, weights)


def test_memory_stays_far_below_all_logits() -> None:
    logits, size_hw = smooth_logits(18, 64, 64), (1080, 1920)
    tracemalloc.start()
    upsample_labels(logits, size_hw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1080 * 1920 + 16e6  # all logits would be 149 MB


@pytest.mark.parametrize("size_hw", [(200, 333), (20, 31), (64, 48)])
def test_certainty_equals_torch_softmax(size_hw: tuple[int, int]) -> None:
    logits = smooth_logits(18, 64, 48, detail=4)
    expected = torch.from_numpy(upsampled_by_torch(logits, size_hw)).double().softmax(0).numpy()
    found = certainty(logits, size_hw, confidence=True, entropy=True, probabilities=True)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(found.confidence, expected.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.entropy, -(expected * np.log(expected)).sum(axis=0), atol=1e-5)
    assert found.confidence is not None
    assert found.confidence.dtype == np.float32


def test_certainty_does_not_depend_on_the_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = smooth_logits(7, 32, 32)
    whole = certainty(logits, (301, 77), probabilities=True).probabilities
    monkeypatch.setattr("imagesmith.vision.certainty._BAND_VALUES", 1000)
    np.testing.assert_array_equal(certainty(logits, (301, 77), probabilities=True).probabilities, whole)


def test_certainty_survives_large_logits_and_computes_only_what_is_asked() -> None:
    found = certainty(np.array([[[3e4]], [[-3e4]]], np.float32), (2, 2), confidence=True)
    assert found.confidence is not None
    assert (found.confidence == 1).all()
    assert found.entropy is None
    assert found.probabilities is None


def test_grid_uncertainty_runs_from_sure_to_uniform() -> None:
    sure = np.zeros((5, 4, 4), np.float32)
    sure[2] = 50
    assert grid_uncertainty(sure) == pytest.approx(0, abs=1e-6)
    assert grid_uncertainty(np.zeros((5, 4, 4), np.float32)) == pytest.approx(1)
    half = np.concatenate([sure[:, :2], np.zeros((5, 2, 4), np.float32)], axis=1)
    assert grid_uncertainty(half) == pytest.approx(0.5, abs=1e-6)
    assert grid_uncertainty(np.zeros((1, 4, 4), np.float32)) == 0


def test_bad_logits_are_refused_in_one_sentence() -> None:
    good = np.zeros((3, 4, 4), np.float32)
    with pytest.raises(EngineFailed, match="NaN"):
        upsample_labels(good * np.float32(np.nan), (8, 8))
    with pytest.raises(BadInput, match=r"\(4, 4\)"):
        upsample_labels(good[0], (8, 8))
    with pytest.raises(BadInput, match="300"):
        upsample_labels(np.zeros((300, 2, 2), np.float32), (8, 8))
    with pytest.raises(BadInput, match=r"\(0, 8\)"):
        upsample_labels(good, (0, 8))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["smooth", "levels", "near ties"])
def test_millions_of_pixels(kind: str, seed: int) -> None:
    """About 37 million pixels, half of them built to break it."""
    random = np.random.default_rng(seed)
    logits = {
        "smooth": lambda: smooth_logits(18, 128, 128, seed=seed, detail=4 + 4 * seed),
        "levels": lambda: random.integers(0, 4, (18, 128, 128)).astype(np.float32),
        "near ties": lambda: near_ties(8, 128) + random.integers(0, 2, (8, 128, 128)).astype(np.float32),
    }[kind]()
    assert_same(logits, (1080, 1920))
