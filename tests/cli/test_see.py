"""segment, classify, detect and edit as a person types them, with the models that ship."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., Any]
COMMANDS = (
    ("segment",),
    ("classify",),
    ("detect",),
    ("edit", "--region", "everything", "--brightness", "0.2"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_odd_photographs_are_answered(run: Run, command: tuple[str, ...], odd: Path) -> None:
    answer = run(command[0], odd, *command[1:], "--json")
    assert answer.code == 0, answer.error
    assert answer.json


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_bad_files_are_refused_in_one_sentence(run: Run, command: tuple[str, ...], bad: tuple[Path, str]) -> None:
    path, says = bad
    answer = run(command[0], path, *command[1:])
    assert answer.code == 1
    lines = answer.error.strip().splitlines()
    assert len(lines) == 1
    assert path.name in lines[0]
    assert re.search(says, lines[0]), lines[0]


def test_a_turned_photograph_is_seen_upright(run: Run, portrait: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.save(tmp_path / "plain.jpg", quality=95)
    portrait.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    portrait.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.jpg", quality=95)

    def shares(name: str) -> dict[str, float]:
        return {row["name"]: row["share"] for row in run("segment", tmp_path / name, "--json").json[0]["regions"]}

    plain, turned, lying = shares("plain.jpg"), shares("turned.jpg"), shares("lying.jpg")
    assert distance(plain, turned) < 0.05
    assert distance(plain, lying) > 0.1  # the control: without the turn the answer is another


def distance(first: dict[str, float], second: dict[str, float]) -> float:
    return sum(abs(first.get(name, 0) - second.get(name, 0)) for name in {*first, *second}) / 2


def test_a_folder_goes_on_past_a_bad_file(run: Run, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        (folder / name).write_bytes(photo.read_bytes())
    (folder / "b.jpg").write_text("not a photograph")
    answer = run("segment", folder, "--json")
    assert answer.code == 1
    assert [Path(item["image"]).name for item in answer.json] == ["a.png", "c.png"]
    assert "1 of 3" in answer.error
    assert "b.jpg" in answer.error


def test_segment_writes_what_other_tools_read(run: Run, photo: Path, tmp_path: Path) -> None:
    answer = run("segment", photo, "--out", tmp_path / "out", "--json")
    record = answer.json[0]
    labels = np.asarray(Image.open(tmp_path / "out" / "photo.labels.png"))
    for region in record["regions"]:
        assert int((labels == region["id"]).sum()) == region["area"]
    assert (tmp_path / "out" / "photo.overlay.png").exists()


def test_the_person_is_found(run: Run, photo: Path) -> None:
    regions = {row["name"]: row["share"] for row in run("segment", photo, "--json").json[0]["regions"]}
    assert regions["hair"] > 0.05
    assert regions["skin"] > 0.03
    assert 0.2 < regions["background"] < 0.7
    found = run("detect", photo, "--json").json[0]["detections"]
    persons = [row["box_xyxy"] for row in found if row["label"] == "person"]
    assert max(overlap(box, (30, 10, 400, 512)) for box in persons) > 0.6


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def test_edit_changes_the_region_and_nothing_else(run: Run, photo: Path, tmp_path: Path) -> None:
    mask_file = tmp_path / "mask.png"
    answer = run(
        *("edit", photo, "--region", "hair", "--recolor", "crimson"),
        *("--out", tmp_path / "new.png", "--mask-out", mask_file, "--json"),
    )
    assert answer.code == 0, answer.error
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (photo, tmp_path / "new.png"))
    mask = np.asarray(Image.open(mask_file).convert("L"))
    assert (before[mask == 0] == after[mask == 0]).all()
    redder = after[mask == 255].astype(float) - before[mask == 255]
    assert redder[:, 0].mean() > redder[:, 1].mean() + 20
    assert answer.json["models"] == ["starter/clothes"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--region", "dres", "--recolor", "red"), 'Did you mean "dress"'),
        (("--region", "hair", "--recolor", "crimsn"), "crimson"),
        (("--region", "hair"), "at least one of recolor"),
        (("--region", "hair + (", "--recolor", "red"), "column"),
    ],
)
def test_edit_says_what_is_wrong(run: Run, photo: Path, words: tuple[str, ...], says: str) -> None:
    answer = run("edit", photo, *words)
    assert answer.code == 2
    assert says in answer.error
    assert answer.error.count("\n") == 1
    assert not list(photo.parent.glob("*-edited.png"))


def test_rank_lists_the_least_certain_first(run: Run, photo: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    rows = run("segment", photo, tmp_path / "white.png", "--rank", "uncertainty", "--json").json
    values = [row["uncertainty"] for row in rows]
    assert values == sorted(values, reverse=True)
    assert {Path(row["image"]).name for row in rows} == {"photo.png", "white.png"}


@pytest.mark.parametrize("engine", ["onnx", "openvino", "torch"])
def test_every_engine_answers_alike(run: Run, photo: Path, engine: str) -> None:
    if engine == "torch":
        pytest.importorskip("torch", reason="PyTorch is an extra")
    answer = run("classify", photo, "--engine", engine, "--crop", "none", "--json")
    reference = run("classify", photo, "--engine", "onnx", "--crop", "none", "--json")
    scores, expected = ([row["score"] for row in item.json[0]["labels"]] for item in (answer, reference))
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_settings_are_defaults_and_options_win(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGESMITH_MAX_MEGAPIXELS", "0.1")
    refused = run("segment", photo)
    assert refused.code == 1
    assert "0.1" in refused.error
    assert run("segment", photo, "--max-megapixels", "1").code == 0


def test_demo_writes_pictures_and_a_report(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image brings the photograph")
    answer = run("demo", "--out", tmp_path / "demo")
    assert answer.code == 0, answer.error
    report = json.loads((tmp_path / "demo" / "report.json").read_text(encoding="utf-8"))
    assert len(report["steps"]) == 9
    for step in report["steps"]:
        assert step["seconds"] > 0
        assert Image.open(tmp_path / "demo" / step["file"]).size[0] >= 512
