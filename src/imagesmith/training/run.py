"""The entry points: `run` a recipe, `resume` a run's folder; `check` is in its own file."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imagesmith.core.errors import BadInput, Cancelled, TrainingFailed, WeightsMissing
from imagesmith.models.checkpoint import read_state
from imagesmith.models.keymap import native_state
from imagesmith.models.safe import read_json
from imagesmith.training.checkpoint import DirectoryCheckpointIO, checkpoints, load_checkpoint, newest_valid
from imagesmith.training.data import Cursor, make_loader, manifest_hash
from imagesmith.training.folder import stored, write_model_folder
from imagesmith.training.recipe import VisionRecipe, dump_recipe, load_recipe, merge
from imagesmith.training.start import adopt, freeze
from imagesmith.training.task import Task
from imagesmith.training.tasks import make_task
from imagesmith.training.vision import (
    Averaging,
    Keeper,
    NotFinite,
    VisionModule,
    Watch,
    cut_rows,
    explain,
)

RECIPE_FILE = "recipe.yaml"
_LOG = logging.getLogger("imagesmith")
Resolve = Callable[[str], Path]
"""Turns the name of a model into the folder that holds its files."""


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind."""

    model: Path
    """Folder of the finished model: config.json, model.safetensors, recipe.yaml, metrics.json and the like."""
    metrics: Mapping[str, float]
    """Measured with the weights as stored, in float32."""
    best_step: int
    steps: int
    skipped: tuple[str, ...] = ()
    """Damaged checkpoints that were passed over."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**dataclasses.asdict(self), "model": str(self.model), "metrics": dict(self.metrics)}


def run(
    recipe: VisionRecipe, out: str | Path, *, progress: Watch | None = None, resolve: Resolve | None = None
) -> TrainResult:
    """Teach a model by a recipe; ``out`` is a new or empty folder for logs, checkpoints and the model.

    ``resolve`` finds the folder of the model named by ``init`` (default: it is a folder). Raises `BadInput` where the
    folder holds another run, `TrainingFailed` where the loss stops being finite.
    """
    folder = Path(out)
    if (folder / RECIPE_FILE).exists() or checkpoints(folder):
        raise BadInput(f'"{folder}" already holds a training; resume it, or choose another folder.')
    folder.mkdir(parents=True, exist_ok=True)
    task = make_task(recipe)
    (folder / RECIPE_FILE).write_text(dump_recipe(recipe), encoding="utf-8")
    return _train(recipe, task, folder, None, (), progress, resolve or as_folder)


def resume(run_dir: str | Path, *, progress: Watch | None = None, resolve: Resolve | None = None) -> TrainResult:
    """Go on with a training from its newest checkpoint that is whole; the result is the same as without the break.

    Raises `BadInput` where the folder holds no training or the data has changed since.
    """
    folder = Path(run_dir)
    if not (folder / RECIPE_FILE).exists():
        raise BadInput(f'"{folder}" holds no training to resume: it has no {RECIPE_FILE}.')
    recipe = load_recipe([folder / RECIPE_FILE])
    skipped: list[str] = []
    found: Path | None = None
    for candidate, damage in newest_valid(folder):
        if damage is None:
            found = candidate
        else:
            skipped.append(damage)
            _LOG.warning("%s", damage)
    return _train(recipe, make_task(recipe), folder, found, tuple(skipped), progress, resolve or as_folder)


def start_network(recipe: VisionRecipe, task: Task, resolve: Resolve) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network of a recipe, with the weights it starts from, and its configuration."""
    config = task.config()
    torch.manual_seed(recipe.train.seed)
    if recipe.init is None:
        return task.build(config), config
    source = resolve(recipe.init)
    old_config = read_json(source / "config.json")
    shape = {key: value for key, value in old_config.items() if key not in _OF_LABELS | _OF_FILE}
    config = merge(merge(shape, recipe.model), {key: config[key] for key in config if key in _OF_LABELS})
    network = task.build(config)
    weights = {
        name: torch.as_tensor(value)
        for name, value in native_state(recipe.architecture, read_state(weights_file(source))).items()
    }
    names = {int(key): str(name) for key, name in old_config.get("id2label", {}).items()}
    old_labels = [names[index] for index in sorted(names)]
    adoption = adopt(network, weights, old_labels, task.labels)
    _LOG.info(
        "started from %s: %d tensors taken over, %d label rows kept, %d tensors fresh",
        recipe.init, adoption.loaded, adoption.renamed_rows, len(adoption.fresh),
    )  # fmt: skip
    return network, config


_OF_LABELS = frozenset({"num_labels", "id2label", "label2id", "architectures", "model_type"})
_OF_FILE = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype"})


def weights_file(folder: Path) -> Path:
    """Return a model folder's weights; raise `WeightsMissing` where there are none."""
    for name in ("model.safetensors", "model.safetensors.index.json"):
        if (folder / name).exists():
            return folder / name
    raise WeightsMissing(f'"{folder}" has no model.safetensors to start from.')


def as_folder(name: str) -> Path:
    """Take a model's name for the folder it is; raise `BadInput` where it is none."""
    if not Path(name, "config.json").exists():
        raise BadInput(f'The model to start from, "{name}", is no folder with a config.json.')
    return Path(name)


def _train(
    recipe: VisionRecipe, task: Task, out: Path, checkpoint: Path | None, skipped: tuple[str, ...],
    progress: Watch | None, resolve: Resolve,
) -> TrainResult:  # fmt: skip
    task.prepare()
    files = task.manifest()
    manifest = manifest_hash([path.name for path in files], [path.stat().st_size for path in files])
    first_step, cursor = 0, Cursor()
    if checkpoint is None:
        network, config = start_network(recipe, task, resolve)
    else:
        state = load_checkpoint(checkpoint)
        # The model it began from is not needed again: all weights come from the checkpoint.
        config = state["config"]
        network = task.build(config)
        if state["manifest"] != manifest:
            raise BadInput(f'The data of "{out}" has changed since its training began; start a new training.')
        first_step, cursor = int(state["global_step"]), Cursor(*state["cursor"])
    freeze(network, recipe.train.freeze, task.parts)
    for name in ("train.csv", "validation.csv"):
        cut_rows(out / name, first_step)
    averaging = Averaging(recipe.train.ema)
    keeper = Keeper(task, recipe, config, out, averaging, progress)
    module = VisionModule(task, recipe, network, {"manifest": manifest, "config": config})
    loader = make_loader(task, recipe.train, recipe.data.workers, first_step, cursor)
    if first_step < recipe.train.steps:
        with _threads(recipe.train.threads), _quiet():
            trainer = _trainer(recipe, out, [averaging, keeper])
            try:
                trainer.fit(module, loader, ckpt_path=None if checkpoint is None else str(checkpoint))
            except NotFinite as error:
                raise explain(error, trainer.global_step, keeper.finite_state) from error
            except SystemExit:
                # Lightning leaves the process on Ctrl-C and on SIGTERM; after the latter a checkpoint was written.
                if isinstance(keeper.exception, KeyboardInterrupt):
                    raise Cancelled(f'Training was interrupted; go on with: imagesmith train resume "{out}"') from None
                raise SystemExit(128 + signal.SIGTERM) from None
    return _finish(recipe, task, config, out, skipped)


def _finish(
    recipe: VisionRecipe, task: Task, config: Mapping[str, Any], out: Path, skipped: tuple[str, ...]
) -> TrainResult:
    """Measure the best weights as they are stored, in float32, and write that into the model folder."""
    folder = out / "model"
    if not folder.exists():
        raise TrainingFailed(f'No weights of "{out}" could be measured: {task.monitor} was never a number.')
    before = read_json(folder / "metrics.json")
    network = task.finished(task.build(config)).eval()
    weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
    single = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    network.load_state_dict(native_state(recipe.architecture, single))
    with _threads(recipe.train.threads):
        figures = task.evaluate(network, "cpu")
    write_model_folder(folder, stored(weights, "float32"), config, recipe, {"step": before["step"], **figures})
    return TrainResult(folder, figures, int(before["step"]), recipe.train.steps, skipped)


def _trainer(recipe: VisionRecipe, out: Path, callbacks: list[Any]) -> lightning.Trainer:
    settings = recipe.train
    return lightning.Trainer(
        default_root_dir=out,
        accelerator=settings.device.partition(":")[0],
        devices=1,
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        max_epochs=1,
        max_steps=settings.steps,
        accumulate_grad_batches=settings.accumulate,
        plugins=[DirectoryCheckpointIO()],
        callbacks=callbacks,
        logger=_tensorboard(out),
        log_every_n_steps=settings.log_every,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic="warn" if torch.cuda.is_available() else False,
    )


def _tensorboard(out: Path) -> Any:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(out, name="tensorboard", version="")
    except ModuleNotFoundError:
        return False


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and its advice about loaders away from the user, and its hands off Ctrl-C."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        # Lightning makes the process deaf to Ctrl-C once it has seen one.
        if in_main_thread:
            signal.signal(signal.SIGINT, on_interrupt)
