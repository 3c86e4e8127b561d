"""What the project promises by name: a change here is a change for every user, so it shows in the diff."""

from __future__ import annotations

import doctest
import importlib
import runpy
from pathlib import Path

import pytest

import imagesmith
from imagesmith.core.requests import ClassifyRequest, DetectRequest, EditRequest, SeeRequest, SegmentRequest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "imagesmith"

NAMES = {
    "ImagesmithError",
    "Model",
    "__version__",
    "classify",
    "detect",
    "edit",
    "evaluate",
    "load",
    "outfit",
    "segment",
    "train",
}
SHARED = (
    "engine device provider precision threads schema_version model allow_pickle batch_size resolution max_megapixels"
)
FIELDS = {
    SeeRequest: "",
    SegmentRequest: "threshold probabilities confidence entropy crop",
    ClassifyRequest: "top_k crop",
    DetectRequest: "threshold top_n nms nms_iou",
    EditRequest: "region recolor cut_out blur pixelate background brightness contrast saturation temperature strength "
    "grow feather person",
}


def test_public_names() -> None:
    assert set(imagesmith.__all__) == NAMES
    for name in NAMES:
        assert getattr(imagesmith, name) is not None
    with pytest.raises(AttributeError, match="segmnt"):
        _ = imagesmith.segmnt  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", FIELDS)
def test_request_fields(kind: type[SeeRequest]) -> None:
    assert list(kind.model_fields) == f"{SHARED} {FIELDS[kind]}".split()
    assert all(field.description for name, field in kind.model_fields.items() if name != "schema_version")


def test_no_public_function_shares_its_name_with_a_module() -> None:
    modules = {path.stem for path in SOURCE.iterdir()}
    assert not NAMES & modules


@pytest.mark.parametrize(
    "module",
    sorted(
        str(path.relative_to(SOURCE.parent).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in SOURCE.rglob("*.py")
        if ">>>" in path.read_text(encoding="utf-8")
    ),
)
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted
    assert not result.failed


def test_reference_is_what_the_records_say() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "build_reference.py"))["pages"]()
    stale = [
        name for name, text in pages.items() if (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") != text
    ]
    assert not stale, f"{stale} differ from the records; run: make docs"
