"""The order of examples, what a training starts from, and what the checks find."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from imagesmith.core.errors import BadInput, BadWeights
from imagesmith.training.check import check
from imagesmith.training.data import Cursor, TicketSampler, advance, shuffled
from imagesmith.training.recipe import make_recipe
from imagesmith.training.settings import TrainSettings
from imagesmith.training.start import MovingAverage, adopt, freeze, parameter_groups, rate_factor
from imagesmith.training.tasks import make_task

Values = Callable[..., dict[str, Any]]


def order(epoch: int) -> np.ndarray:
    # Epochs of different length, as repeated rare photographs make them.
    return shuffled(5 + epoch % 3, seed=1, epoch=epoch)


@pytest.mark.parametrize("first_step", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_sampler_goes_on_from_two_integers(first_step: int, accumulate: int) -> None:
    settings = TrainSettings.model_validate(
        {"steps": 7, "batch_size": 3, "accumulate": accumulate, "stages": [{"until": 0.4, "size_hw": [8, 8]},
         {"size_hw": [8, 8], "batch_size": 5}]}
    )  # fmt: skip
    straight = list(TicketSampler(order, settings))
    assert len(straight) == 7 * accumulate == len(TicketSampler(order, settings, first_step))
    cursor = Cursor()
    for step in range(first_step):
        cursor = advance(cursor, settings.batch_size_at(step), order)
    rest = list(TicketSampler(order, settings, first_step, Cursor(*map(int, cursor))))
    assert rest == straight[first_step * accumulate :]
    assert [len(batch) for batch in straight[:: len(straight) - 1]] == [3, 5]


def test_every_epoch_shows_every_photograph_once() -> None:
    settings = TrainSettings.model_validate({"steps": 10, "batch_size": 6, "stages": [{"size_hw": [8, 8]}]})
    tickets = [ticket for batch in TicketSampler(lambda epoch: shuffled(12, 0, epoch), settings) for ticket in batch]
    for epoch in range(5):
        assert sorted(ticket.photograph for ticket in tickets if ticket.epoch == epoch) == list(range(12))
    first, second = ([ticket.photograph for ticket in tickets if ticket.epoch == epoch] for epoch in (0, 1))
    assert first != second


def test_repeats_are_kept_on_average() -> None:
    repeats = np.array([1.0, 2.5, 1.0, 4.0])
    counts = np.mean([np.bincount(shuffled(4, 3, epoch, repeats), minlength=4) for epoch in range(400)], axis=0)
    assert np.abs(counts - repeats).max() < 0.1


def test_validation_is_every_eighth_and_people_stay_together(segment_values: Values, classify_values: Values) -> None:
    task = make_task(make_recipe(segment_values()))
    assert [pair.image.name for pair in task.validation] == ["00.png", "08.png"]
    people = make_task(make_recipe(classify_values()))
    held_out = {path.stem.rpartition("_")[0] for path, _ in people.validation}
    assert held_out == {"dark_Person0", "dark_Person8", "light_Person7"}
    assert not held_out & {path.stem.rpartition("_")[0] for path, _ in people.train}


class Small(nn.Module):
    def __init__(self, labels: int) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.classifier = nn.Linear(4, labels)


def test_adopt_keeps_rows_of_known_labels() -> None:
    old, new = Small(3), Small(4)
    fresh = new.classifier.weight.detach().clone()
    report = adopt(new, old.state_dict(), ["a", "b", "c"], ["c", "x", "a", "y"])
    assert torch.equal(new.body.weight, old.body.weight)
    assert torch.equal(new.classifier.weight[0], old.classifier.weight[2])
    assert torch.equal(new.classifier.weight[2], old.classifier.weight[0])
    assert torch.equal(new.classifier.weight[[1, 3]], fresh[[1, 3]])
    assert (report.renamed_rows, report.fresh) == (4, ())


def test_adopt_with_as_many_but_other_labels_does_not_keep_wrong_rows() -> None:
    old, new = Small(2), Small(2)
    fresh = new.classifier.weight.detach().clone()
    adopt(new, old.state_dict(), ["a", "b"], ["b", "z"])
    assert torch.equal(new.classifier.weight[0], old.classifier.weight[1])
    assert torch.equal(new.classifier.weight[1], fresh[1])


def test_adopt_nothing_is_an_error() -> None:
    with pytest.raises(BadWeights, match="no layer in common"):
        adopt(Small(2), {"other": torch.zeros(3)})


def test_freezing_and_groups() -> None:
    model, parts = Small(2), {"head": ("classifier.*",), "body": ("body.*", "norm.*")}
    assert freeze(model, ["body"], parts) == ["body.bias", "body.weight", "norm.bias", "norm.weight"]
    groups = parameter_groups(model, 0.1, 0.01, {"head": 10.0}, parts)
    assert {(group["lr"], group["weight_decay"], len(group["params"])) for group in groups} == {
        (1.0, 0.01, 1),
        (1.0, 0.0, 1),
    }
    freeze(model, ["*.bias"], parts)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "body.weight", "norm.weight", "classifier.weight",
    ]  # fmt: skip
    with pytest.raises(BadInput, match=r'no part "haed".*Did you mean "head"'):
        freeze(model, ["haed"], parts)
    with pytest.raises(BadInput, match="every part"):
        freeze(model, ["*"], parts)


def test_moving_average_by_hand() -> None:
    model = Small(2)
    average = MovingAverage(model, 0.5)
    start = model.body.weight.detach().clone()
    with torch.no_grad():
        model.body.weight += 1
        model.norm.num_batches_tracked += 7
    average.update(model, step=100)
    average.swap(model)
    assert torch.allclose(model.body.weight, start + 0.5)
    assert model.norm.num_batches_tracked == 7
    average.swap(model)
    assert torch.allclose(model.body.weight, start + 1)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [("constant", 7, 1.0), ("poly", 5, 0.5**0.9), ("cosine", 5, 0.5), ("cosine", 0, 0.5), ("poly", 0, 0.5)],
)
def test_learning_rate_schedules(schedule: str, step: int, expected: float) -> None:
    assert math.isclose(rate_factor(step, 10, 2, schedule, 0.9), expected)


@pytest.fixture
def pack(segment_pack: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "pack"
    shutil.copytree(segment_pack, copy)
    return copy


def findings(values: dict[str, Any], pack: Path) -> str:
    return check(make_recipe({**values, "data": {"path": str(pack), "workers": 0}})).text()


def test_check_of_a_good_pack(segment_values: Values, segment_pack: Path) -> None:
    report = check(make_recipe(segment_values()))
    assert report.ok
    assert report.parameters > 1000
    assert report.memory_bytes > 4 * 4 * report.parameters
    assert report.seconds > 0
    assert {finding.severity for finding in report.findings} == {"note"}
    assert "mirroring trades: left-shoe and right-shoe" in report.text()
    assert json.dumps(report.to_dict())


def test_check_names_what_is_wrong(segment_values: Values, pack: Path) -> None:
    (pack / "images" / "notes.txt").write_text("x")
    (pack / "images" / ".DS_Store").write_text("x")
    shutil.copy(pack / "images" / "00.png", pack / "images" / "10.png")
    shutil.copy(pack / "images" / "01.png", pack / "images" / "02.png")
    (pack / "masks" / "03.png").unlink()
    shutil.copy(pack / "masks" / "04.png", pack / "masks" / "extra.png")
    text = findings(segment_values(), pack)
    assert '"notes.txt" is no picture' in text
    assert ".DS_Store" not in text
    assert '"03.png" has no mask' in text
    assert 'The mask "extra.png" has no photograph' in text
    assert '"01.png" and "02.png" are the same photograph.' in text
    assert '"10.png" and "00.png" are the same photograph and one is for validation' in text
    assert "The training can start." in text


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda pack: Image.new("L", (24, 32), 9).save(pack / "masks" / "01.png"),
            "class id 9, but the labels end at 3",
        ),
        (lambda pack: Image.new("RGB", (24, 32)).save(pack / "masks" / "01.png"), "mode RGB"),
        (lambda pack: Image.new("L", (10, 32)).save(pack / "masks" / "01.png"), "10 x 32"),
        (lambda pack: (pack / "images" / "01.png").write_bytes(b"nothing"), "01.png"),
        (lambda pack: (pack / "labels.json").write_text('{"1": "a"}'), "every class id"),
        (lambda pack: shutil.rmtree(pack / "masks"), "is missing"),
        (lambda pack: [path.unlink() for path in (pack / "masks").iterdir()], "0 photographs with masks"),
    ],
)
def test_check_stops_a_training_that_cannot_work(
    segment_values: Values, pack: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    spoil(pack)
    text = findings(segment_values(), pack)
    assert expected in text
    assert "cannot start" in text


def test_check_finds_a_part_and_a_label_that_do_not_exist(segment_values: Values, segment_pack: Path) -> None:
    assert 'no part "haed"' in findings(segment_values(freeze=["haed"]), segment_pack)
    values = segment_values() | {"augment": {"recolor_labels": ["drss"]}}
    assert 'Did you mean "dress"' in findings(values, segment_pack)


def test_check_of_a_class_folder(classify_values: Values, tmp_path: Path) -> None:
    assert check(make_recipe(classify_values())).ok
    (tmp_path / "only").mkdir()
    values = classify_values() | {"data": {"path": str(tmp_path)}}
    assert "1 folder(s)" in check(make_recipe(values)).text()
