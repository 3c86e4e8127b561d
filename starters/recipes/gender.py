"""Teach starter/gender: a small convolutional network first, then a ViT that answers as it does.

    python starters/recipes/gender.py DATA OUT [--recipe gender.yaml]

DATA holds female/ and male/ with face crops; every eighth person is for validation. OUT gets teacher.safetensors and,
in model/, what a model folder needs. Everything is set in the recipe; about 40 minutes on one processor core.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imagesmith.evaluation.splits import select
from imagesmith.nn.vit import ViT

Pack = tuple[Tensor, Tensor]
"""Photographs (N, 3, side, side) uint8 and label ids (N,)."""
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Network, pictures (B, 3, H, W) normalised, soft labels (B, C) -> what is minimised."""


def load_pack(root: Path, labels: list[str], side: int) -> dict[str, Pack]:
    """Decode the photographs of both splits; no person is in both."""
    names = [f"{label}/{path.name}" for label in labels for path in sorted((root / label).glob("*.jpg"))]
    packs = {}
    for split in ("train", "val"):
        chosen = select(names, split, "person")
        photos = (Image.open(root / name).convert("RGB").resize((side, side), Image.BILINEAR) for name in chosen)
        pixels = torch.from_numpy(np.stack([np.asarray(photo) for photo in photos])).permute(0, 3, 1, 2).contiguous()
        packs[split] = pixels, torch.tensor([labels.index(name.split("/")[0]) for name in chosen])
    return packs


def normalise(pictures: Tensor) -> Tensor:
    """Bring pictures from 0..1 to -1..1."""
    return (pictures - 0.5) / 0.5


def augment(photos: Tensor, size: int, settings: dict[str, Any], random: torch.Generator) -> Tensor:
    """Vary a batch (B, 3, side, side) uint8: window, rotation, mirroring, colour, blur, noise, a covered part."""
    count, strength = len(photos), settings["strength"]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).clamp(-2.5, 2.5)

    low, high = (math.log(view) for view in settings["view"])
    scale = torch.exp((uniform(count) * (high - low) + low) * strength)
    aspect, angle = torch.exp(normal(count) * 0.06 * strength), normal(count) * 0.12 * strength
    shift, mirror = normal(count, 2) * 0.07 * strength, torch.where(uniform(count) < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = (
        torch.stack([cosine * aspect * mirror, -sine / aspect, shift[:, 0]], dim=1),
        torch.stack([sine * aspect * mirror, cosine / aspect, shift[:, 1]], dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), [count, 3, size, size], align_corners=False)
    x = F.grid_sample(photos.float() / 255, grid, padding_mode="reflection", align_corners=False)
    x = x * torch.exp(normal(count, 1, 1, 1) * 0.2 * strength) * torch.exp(normal(count, 3, 1, 1) * 0.06 * strength)
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    saturation = torch.exp(normal(count, 1, 1, 1) * 0.3 * strength)
    saturation = torch.where(uniform(count, 1, 1, 1) < 0.12, torch.zeros(()), saturation)
    x = grey + (x - grey) * saturation
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * torch.exp(normal(count, 1, 1, 1) * 0.2 * strength)).clamp(0, 1)
    kind = uniform(count)
    blurred, noisy = kind < 0.1 * strength, kind > 1 - 0.1 * strength
    if blurred.any():
        small = F.interpolate(x[blurred], scale_factor=0.45, mode="bilinear", antialias=True)
        x[blurred] = F.interpolate(small, size=(size, size), mode="bilinear")
    if noisy.any():
        x[noisy] = (x[noisy] + torch.randn(x[noisy].shape, generator=random) * 0.04).clamp(0, 1)
    for index in (uniform(count) < settings["erase"]).nonzero().flatten().tolist():
        height, width = (int(size * (0.12 + 0.33 * share)) for share in uniform(2).tolist())
        top, left = int(uniform(1) * (size - height)), int(uniform(1) * (size - width))
        x[index, :, top : top + height, left : left + width] = uniform(3, 1, 1)
    return normalise(x)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width))
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        short = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.short = nn.Identity() if stride == 1 and width_in == width else short

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.short(x))


class Teacher(nn.Module):
    """A small residual network, which learns faces from few photographs."""

    def __init__(self, widths: list[int], classes: int) -> None:
        super().__init__()
        stem = nn.Conv2d(3, widths[0], 5, 2, 2, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(widths[0]), nn.ReLU())
        pairs = itertools.pairwise(widths)
        self.body = nn.Sequential(*(part for i, o in pairs for part in (Block(i, o, 2), Block(o, o, 1))))
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(widths[-1], classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(self.stem(x.contiguous(memory_format=torch.channels_last)))
        return {"logits": self.head(self.dropout(features.mean((2, 3))))}


def cross_entropy(network: nn.Module, pictures: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy with soft labels."""
    return F.cross_entropy(network(pictures)["logits"].float(), target)


def matching(teacher: nn.Module, share: float, temperature: float) -> Loss:
    """Return a loss that is in part agreement with the teacher on the very same pictures."""

    def loss(network: nn.Module, pictures: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            soft = F.softmax(teacher(pictures)["logits"].float() / temperature, dim=1)
        logits = network(pictures)["logits"].float()
        agreement = F.cross_entropy(logits / temperature, soft) * temperature**2
        return share * agreement + (1 - share) * F.cross_entropy(logits, target)

    return loss


def batches(pack: Pack, size: int, recipe: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented pictures and soft labels for ever, each photograph once per round."""
    random = torch.Generator().manual_seed(recipe["seed"])
    photos, labels = pack
    classes, smoothing = len(recipe["labels"]), settings.get("label_smoothing", 0.0)
    order = torch.empty(0, dtype=torch.long)
    while True:
        if len(order) < settings["batch_size"]:
            order = torch.cat([order, torch.randperm(len(photos), generator=random)])
        index, order = order[: settings["batch_size"]], order[settings["batch_size"] :]
        pictures = augment(photos[index], size, recipe["augment"], random)
        target = F.one_hot(labels[index], classes) * (1 - smoothing) + smoothing / classes
        if float(torch.rand(1, generator=random)) < settings.get("mixup", 0.0):
            share = float(torch.rand(1, generator=random))
            pictures, target = (share * part + (1 - share) * part.flip(0) for part in (pictures, target))
        yield pictures, target


def learning_rates(steps: int, warmup: int) -> Iterator[float]:
    """Yield a rise, then half a cosine down to a hundredth, as factors of the learning rate."""
    for step in range(steps):
        yield min(1.0, (step + 1) / warmup) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))


def train(
    network: nn.Module, loss: Loss, packs: dict[str, Pack], recipe: dict[str, Any], part: str, out: Path
) -> nn.Module:
    """Return the moving average of the network's weights after all steps of a part of the recipe; `out` keeps it."""
    settings, size = recipe[part], recipe["student"]["model"]["image_size"]
    average = copy.deepcopy(network)
    matrices = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=(0.9, 0.99))
    rates = [rate for steps in settings["cycles"] for rate in learning_rates(steps, settings["warmup_steps"])]
    start, total = time.monotonic(), 0.0
    endless = batches(packs["train"], size, recipe, settings)
    for step, (rate, (pictures, target)) in enumerate(zip(rates, endless, strict=False)):
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * rate
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe["precision"] == "bf16"):
            value = loss(network, pictures, target)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        keep = min(settings["ema"], (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                mean.lerp_(now, 1 - keep) if mean.is_floating_point() else mean.copy_(now)
        total += float(value.detach())
        if (step + 1) % recipe["validate_every"] == 0 or step + 1 == len(rates):
            figures = measure(average, packs["val"], size)
            shown = " ".join(f"{name} {figure:.4f}" for name, figure in figures.items() if name != "count")
            mean_loss = total / ((step % recipe["validate_every"]) + 1)
            print(f"step {step + 1}: loss {mean_loss:.4f} {shown} {time.monotonic() - start:.0f} s", flush=True)
            save_file({name: value.contiguous() for name, value in average.state_dict().items()}, out)
            total = 0.0
    return average.eval()


def probabilities(network: nn.Module, photos: Tensor, size: int) -> Tensor:
    """Return class probabilities (N, C) in float32, photographs shown whole."""
    network.eval()
    answers = []
    with torch.inference_mode():
        for part in photos.split(128):
            pictures = F.interpolate(part.float() / 255, size=(size, size), mode="bilinear", antialias=True)
            answers.append(network(normalise(pictures))["logits"].softmax(dim=1))
    network.train()
    return torch.cat(answers)


def measure(network: nn.Module, pack: Pack, size: int) -> dict[str, float]:
    """Return accuracy and log loss on a pack."""
    shares, labels = probabilities(network, pack[0], size), pack[1]
    right = shares.gather(1, labels[:, None])[:, 0].clamp_min(1e-9)
    accuracy = float((shares.argmax(dim=1) == labels).float().mean())
    return {"accuracy": accuracy, "log_loss": float(-right.log().mean()), "count": len(labels)}


def write_folder(folder: Path, student: nn.Module, recipe: dict[str, Any], metrics: dict[str, float]) -> None:
    """Write the model folder: configuration, preprocessing, weights in float16, recipe and figures."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = recipe["labels"]
    config = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        **recipe["student"]["model"],
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    size = recipe["student"]["model"]["image_size"]
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    for name, values in (
        ("config.json", config),
        ("preprocessor_config.json", preprocessor),
        ("metrics.json", metrics),
    ):
        (folder / name).write_text(json.dumps(values, indent=1) + "\n")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    weights = {name: value.half().contiguous() for name, value in student.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Train teacher and student, or the student alone where the teacher is there already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_suffix(".yaml"))
    given = parser.parse_args()
    recipe = yaml.safe_load(given.recipe.read_text())
    torch.set_num_threads(recipe["threads"])
    torch.manual_seed(recipe["seed"])
    packs = load_pack(given.data, recipe["labels"], recipe["side"])
    size = recipe["student"]["model"]["image_size"]
    given.out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(recipe["teacher"]["widths"], len(recipe["labels"]))
    kept = given.out / "teacher.safetensors"
    if not kept.is_file():
        train(teacher, cross_entropy, packs, recipe, "teacher", kept)
    teacher.load_state_dict(load_file(kept))
    print("teacher:", measure(teacher, packs["val"], size), flush=True)
    student = ViT.from_config({**recipe["student"]["model"], "num_labels": len(recipe["labels"])})
    settings = recipe["student"]
    loss = matching(teacher.eval(), settings["teacher_share"], settings["temperature"])
    student = train(student, loss, packs, recipe, "student", given.out / "student.safetensors")
    student.load_state_dict({name: value.half().float() for name, value in student.state_dict().items()})
    metrics = measure(student, packs["val"], size)
    write_folder(given.out / "model", student, recipe, metrics)
    print("student, weights as stored:", metrics)


if __name__ == "__main__":
    main()
