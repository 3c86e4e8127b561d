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
from collections.abc import Iterator
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
        return {"logits": self.head(self.dropout(self.features(x).mean((2, 3))))}

    def features(self, x: Tensor) -> Tensor:
        """Return the last feature map [B,D,H/16,W/16]."""
        return self.body(self.stem(x.contiguous(memory_format=torch.channels_last)))

    def loss(self, pictures: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy with soft labels."""
        return F.cross_entropy(self(pictures)["logits"].float(), target)


class Matching(nn.Module):
    """A student beside its teacher: it matches the teacher's answer and, patch by patch, its features.

    The teacher's last features form the same grid as the ViT's patches, so each patch's token is told what belongs
    there: hundreds of numbers per picture to learn from instead of one label.
    """

    def __init__(self, student: ViT, teacher: Teacher, settings: dict[str, Any]) -> None:
        super().__init__()
        self.student, self.settings = student, settings
        self.reader = nn.Linear(student.config.hidden_size, teacher.head.in_features)
        # Not a part of this module: the teacher neither learns nor is averaged.
        self.answer = [teacher.eval()]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.student(x)

    def loss(self, pictures: Tensor, target: Tensor) -> Tensor:
        """Return agreement with the teacher on the very same pictures, and cross-entropy with the labels."""
        teacher, temperature, share = self.answer[0], self.settings["temperature"], self.settings["teacher_share"]
        with torch.no_grad():
            grid = teacher.features(pictures)  # [B,D,h,w]
            soft = F.softmax(teacher.head(grid.mean((2, 3))).float() / temperature, dim=1)
            features = grid.float().flatten(2).transpose(1, 2)
            features = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-3)
        tokens = self.student.vit(pictures)
        logits = self.student.classifier(tokens[:, 0]).float()
        agreement = F.cross_entropy(logits / temperature, soft) * temperature**2
        apart = F.smooth_l1_loss(self.reader(tokens[:, 1:]).float(), features)
        labels = F.cross_entropy(logits, target)
        return share * agreement + (1 - share) * labels + self.settings["feature_weight"] * apart


def place_patches(student: ViT) -> None:
    """Begin with sines and cosines of each patch's row and column as its position, instead of noise."""
    height, width = student.config.grid_hw
    channels = student.config.hidden_size // 4
    waves = 0.5 ** torch.linspace(0, 4, channels)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [axis.flatten()[:, None] * math.pi * waves for axis in (rows, columns)]
    table = torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], dim=1)
    with torch.no_grad():
        student.vit.embeddings.position_embeddings[0, 1:] = 0.2 * table


def batches(pack: Pack, size: int, settings: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield augmented pictures and soft labels for ever, each photograph once per round."""
    random = torch.Generator().manual_seed(settings["seed"])
    photos, labels = pack
    classes, smoothing = int(labels.max()) + 1, settings.get("label_smoothing", 0.0)
    order = torch.empty(0, dtype=torch.long)
    while True:
        if len(order) < settings["batch_size"]:
            order = torch.cat([order, torch.randperm(len(photos), generator=random)])
        index, order = order[: settings["batch_size"]], order[settings["batch_size"] :]
        pictures = augment(photos[index], size, settings["augment"], random)
        target = F.one_hot(labels[index], classes) * (1 - smoothing) + smoothing / classes
        if float(torch.rand(1, generator=random)) < settings.get("mixup", 0.0):
            share = float(torch.rand(1, generator=random))
            pictures, target = (share * part + (1 - share) * part.flip(0) for part in (pictures, target))
        yield pictures, target


def learning_rates(steps: int, warmup: int) -> Iterator[float]:
    """Yield a rise, then half a cosine down to a hundredth, as factors of the learning rate."""
    for step in range(steps):
        yield min(1.0, (step + 1) / warmup) * (0.01 + 0.495 * (1 + math.cos(math.pi * step / steps)))


def train(network: Teacher | Matching, packs: dict[str, Pack], recipe: dict[str, Any], part: str, out: Path) -> None:
    """Go through the cycles of a part of the recipe, each from the former's averaged weights; `out` keeps the last.

    Where the part says `average_cycles`, the network ends with the mean of the last so many cycles' weights.
    """
    ends = []
    for number, cycle in enumerate(recipe[part]["cycles"], start=1):
        varied = {**recipe["augment"], **cycle.get("augment", {})}
        settings = {**recipe[part], **cycle, "augment": varied, "seed": recipe["seed"] + number}
        print(f"{part}, cycle {number} of {len(recipe[part]['cycles'])}", flush=True)
        average = run_cycle(network, packs, recipe, settings, out)
        network.load_state_dict(average.state_dict())
        ends.append(average.state_dict())
    last = ends[-recipe[part].get("average_cycles", 1) :]
    mean = {name: torch.stack([end[name].float() for end in last]).mean(dim=0) for name in last[0]}
    network.load_state_dict(mean)
    network.eval()


def run_cycle(
    network: Teacher | Matching, packs: dict[str, Pack], recipe: dict[str, Any], settings: dict[str, Any], out: Path
) -> nn.Module:
    """Return the moving average of the network's weights after one rise and fall of the learning rate."""
    size, steps = recipe["student"]["model"]["image_size"], settings["steps"]
    average = copy.deepcopy(network)
    matrices = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=(0.9, 0.99))
    start, total = time.monotonic(), 0.0
    rates, endless = learning_rates(steps, settings["warmup_steps"]), batches(packs["train"], size, settings)
    for step, (rate, (pictures, target)) in enumerate(zip(rates, endless, strict=False), start=1):
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * rate
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe["precision"] == "bf16"):
            value = network.loss(pictures, target)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        keep = min(settings["ema"], step / (9 + step))
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                mean.lerp_(now, 1 - keep) if mean.is_floating_point() else mean.copy_(now)
        total += float(value.detach())
        if step % recipe["validate_every"] == 0 or step == steps:
            figures = measure(average, packs["val"], size)
            shown = " ".join(f"{name} {figure:.4f}" for name, figure in figures.items() if name != "count")
            mean_loss = total / ((step - 1) % recipe["validate_every"] + 1)
            print(f"step {step}: loss {mean_loss:.4f} {shown} {time.monotonic() - start:.0f} s", flush=True)
            save_file({name: value.contiguous() for name, value in average.state_dict().items()}, out)
            total = 0.0
    return average


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
    parser.add_argument("--start", type=Path, help="student.safetensors of a training that was cut off")
    given = parser.parse_args()
    recipe = yaml.safe_load(given.recipe.read_text())
    torch.set_num_threads(recipe["threads"])
    torch.manual_seed(recipe["seed"])
    packs = load_pack(given.data, recipe["labels"], recipe["side"])
    size = recipe["student"]["model"]["image_size"]
    given.out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(recipe["teacher"]["widths"], len(recipe["labels"]))
    kept = given.out / "teacher.safetensors"
    if kept.is_file():
        teacher.load_state_dict(load_file(kept))
    else:
        train(teacher, packs, recipe, "teacher", kept)
    print("teacher:", measure(teacher, packs["val"], size), flush=True)
    student = ViT.from_config({**recipe["student"]["model"], "num_labels": len(recipe["labels"])})
    place_patches(student)
    pair = Matching(student, teacher, recipe["student"])
    if given.start:
        pair.load_state_dict(load_file(given.start))
    train(pair, packs, recipe, "student", given.out / "student.safetensors")
    student.load_state_dict({name: value.half().float() for name, value in student.state_dict().items()})
    metrics = measure(student, packs["val"], size)
    write_folder(given.out / "model", student, recipe, metrics)
    print("student, weights as stored:", metrics)


if __name__ == "__main__":
    main()
