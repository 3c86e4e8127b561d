"""What a newcomer reads: help at 80 columns, models, doctor, and sentences for wrong words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imagesmith.core.requests import ClassifyRequest, DetectRequest, EditRequest, SegmentRequest

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("command", "kind"),
    [("segment", SegmentRequest), ("classify", ClassifyRequest), ("detect", DetectRequest), ("edit", EditRequest)],
)
def test_every_field_of_a_request_is_an_option(run: Run, command: str, kind: type[SegmentRequest]) -> None:
    text = run(command, "--help").out
    for name in kind.model_fields:
        assert name == "schema_version" or f"--{name.replace('_', '-')}" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "words", [(), ("models",), ("train",), ("data",), ("models", "search"), ("train", "run"), ("evaluate",), ("demo",)]
)
def test_help_fits_a_terminal(run: Run, words: tuple[str, ...]) -> None:
    text = run(*words, "--help").out
    assert "Usage: imagesmith" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("segment",), 2, "Missing argument"),
        (("segment", "nothing.jpg"), 1, "nothing.jpg"),
        (("segment", "nothing.jpg", "--threshold", "3"), 2, "threshold"),
        (("segment", "nothing.jpg", "--engine", "tf"), 2, "openvino"),
        (("segment", "nothing.jpg", "--rank", "size"), 2, "uncertainty"),
        (("models", "show", "starter/cloths"), 2, "starter/clothes"),
        (("models", "list", "--task", "paint"), 2, "segment"),
        (("train", "check", "nothing.yaml"), 2, "nothing.yaml"),
        (("evaluate", "starter/clothes", "nowhere"), 2, "nowhere"),
        (("data", "prepare", "cpp", ".", "out"), 2, "ccp"),
    ],
)
def test_wrong_words_are_answered_in_a_sentence(run: Run, words: tuple[str, ...], code: int, says: str) -> None:
    answer = run(*words)
    assert answer.code == code
    assert says in answer.error


def test_models_list_and_commercial(run: Run) -> None:
    names = {row["name"] for row in run("models", "list", "--json").json}
    assert {"starter/clothes", "mattmdjaga/segformer_b2_clothes", "facebook/detr-resnet-101"} <= names
    free = {row["name"] for row in run("models", "list", "--commercial", "--json").json}
    assert "starter/clothes" in free
    assert not {"starter/face", "starter/gender", "jonathandinu/face-parsing"} & free


def test_models_show_prints_the_card(run: Run) -> None:
    text = run("models", "show", "starter/face").out
    assert "CelebAMask-HQ" in text
    assert "eye" in text


def test_doctor_explains_its_choice(run: Run) -> None:
    report = run("doctor", "--json").json
    assert report["hardware"]["cores"] >= 1
    assert {model["name"] for model in report["models"]} >= {"starter/clothes", "starter/face"}
    assert all(model["reasons"] for model in report["models"])
