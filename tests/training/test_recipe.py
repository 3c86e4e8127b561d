"""Recipes: what is misspelt is found, what is merged is merged, what is written is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagesmith.core.errors import BadInput
from imagesmith.training.recipe import (
    RECIPES,
    ClassifyRecipe,
    DetectRecipe,
    SegmentRecipe,
    dump_recipe,
    load_recipe,
    make_recipe,
    merge,
    parse_override,
)

Values = Callable[..., dict[str, Any]]
TRAIN = {"steps": 10, "stages": [{"size_hw": [32, 32]}]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train": {**TRAIN, "learning_rat": 1}}, 'no "train.learning_rat". Did you mean "learning_rate"'),
        ({"agument": {}}, 'no "agument". Did you mean "augment"'),
        (
            {"train": {"steps": 5, "stages": [{"size_wh": [1, 2]}]}},
            'no "train.stages.0.size_wh". Did you mean "size_hw"',
        ),
        ({"data": {"path": "p", "mask": "m"}}, 'no "data.mask". Did you mean "masks"'),
        ({"loss": {"zzz": 1}}, "Known here: cross_entropy, jaccard"),
        ({"task": "segmnt"}, 'Did you mean "segment"'),
        ({"task": None}, "names none"),
        ({"train": {**TRAIN, "steps": "many"}}, "train.steps: input should be a valid integer"),
        ({"train": {**TRAIN, "stages": [{"until": 0.5, "size_hw": [32, 32]}]}}, "end at 1"),
        ({"train": {**TRAIN, "warmup_steps": 11}}, "exceeds the 10 steps"),
        ({"augment": {"scale": [2, 1]}}, "scale must rise"),
        ({"augment": {"flip": 1.5}}, "augment.flip"),
    ],
)
def test_mistakes_are_one_sentence_with_a_suggestion(change: dict[str, Any], expected: str) -> None:
    values = {"task": "segment", "data": {"path": "p"}, "train": TRAIN, **change}
    with pytest.raises(BadInput) as caught:
        make_recipe(values)
    assert expected.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_the_task_chooses_the_record() -> None:
    kinds = {"segment": SegmentRecipe, "classify": ClassifyRecipe, "detect": DetectRecipe}
    for task, kind in kinds.items():
        assert type(make_recipe({"task": task, "data": {"path": "p"}, "train": TRAIN})) is kind


def test_files_merge_left_to_right_and_overrides_win(tmp_path: Path) -> None:
    base, change = tmp_path / "base.yaml", tmp_path / "change.yaml"
    base.write_text(yaml.safe_dump({"task": "segment", "data": {"path": "p", "workers": 0}, "train": TRAIN}))
    change.write_text("train: {steps: 20, seed: 4}\n")
    recipe = load_recipe([base, change], ["train.steps=30", "augment.recolor_labels=[dress, hat]"])
    assert (recipe.train.steps, recipe.train.seed, recipe.data.workers) == (30, 4, 0)
    assert recipe.train.stages[0].size_hw == (32, 32)
    assert recipe.augment.recolor_labels == ("dress", "hat")


def test_a_written_recipe_is_read_back_equal(segment_values: Values, classify_values: Values, tmp_path: Path) -> None:
    for values in (segment_values(), classify_values(freeze=["encoder"], learning_rates={"head": 10})):
        recipe = make_recipe(values)
        path = tmp_path / "recipe.yaml"
        path.write_text(dump_recipe(recipe))
        assert load_recipe([path]) == recipe


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "\tx", "just words"])
def test_files_that_are_no_recipe_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"bad\.yaml"):
        load_recipe([path])
    with pytest.raises(BadInput, match="cannot be read"):
        load_recipe([tmp_path / "missing.yaml"])


@pytest.mark.parametrize("text", ["train.steps", "=3", "train..steps=3", "a.b=[1"])
def test_overrides_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_override(text)


def test_merge_leaves_its_inputs_alone() -> None:
    first: dict[str, Any] = {"a": {"b": [1, 2]}, "c": 1}
    assert merge(first, {"a": {"b": [3]}, "c": {"d": 1}}) == {"a": {"b": [3]}, "c": {"d": 1}}
    assert first == {"a": {"b": [1, 2]}, "c": 1}


def test_stages_follow_the_share_of_steps() -> None:
    stages = [{"until": 0.5, "size_hw": [16, 16]}, {"size_hw": [32, 32], "batch_size": 2}]
    train = make_recipe(
        {
            "task": "segment",
            "data": {"path": "p"},
            "train": {"steps": 7, "batch_size": 4, "accumulate": 3, "stages": stages},
        }
    ).train
    assert [train.stage_at(step).size_hw[0] for step in range(8)] == [16] * 4 + [32] * 4
    assert [train.batch_size_at(step) for step in (0, 6)] == [12, 6]


def test_editors_get_a_schema() -> None:
    schema = RECIPES.json_schema()
    assert set(schema["discriminator"]["mapping"]) == {"segment", "classify", "detect"}


SHIPPED = [
    path
    for path in sorted(Path(__file__).parents[2].glob("starters/recipes/*.yaml"))
    if "task" in yaml.safe_load(path.read_text())
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe([path]).data.path
