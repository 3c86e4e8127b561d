"""Models of real size with random weights, a photograph, and both sides opened on them.

Random weights cost what trained ones cost. The folders are what `transformers` writes itself, so both sides read the
same files. Nothing is downloaded.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from harness import Side
from PIL import Image

import imagesmith

PEER_DEFAULT = "transformers, default (eager fp32)"
PEER_COMPILED = "transformers, torch.compile fp32"
PEER_BEST = "transformers, torch.compile bf16"
OURS = "imagesmith fp32 (openvino)"
OURS_BF16 = "imagesmith bf16 (openvino)"


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a folder for models and conversions that vanishes afterwards; nothing lands in the user's cache."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    with TemporaryDirectory(prefix="imagesmith-bench-") as folder:
        before = os.environ.get("IMAGESMITH_CACHE")
        os.environ["IMAGESMITH_CACHE"] = str(Path(folder) / "cache")
        try:
            yield Path(folder)
        finally:
            os.environ.pop("IMAGESMITH_CACHE", None)
            if before is not None:
                os.environ["IMAGESMITH_CACHE"] = before


def write_photo(path: Path, width: int, height: int) -> Path:
    """Write a photograph as JPEG: scikit-image's astronaut, cut to the shape and enlarged."""
    from skimage.data import astronaut

    picture = Image.fromarray(astronaut())
    side_w, side_h = (512, round(512 * height / width)) if width >= height else (round(512 * width / height), 512)
    left, top = (512 - side_w) // 2, 0
    picture = picture.crop((left, top, left + side_w, top + side_h)).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(path, quality=92)
    return path


def segformer_b2(folder: Path, photo: Path, labels: int = 18) -> Path:
    """Write SegFormer-B2 with preprocessing to 512 x 512, its classes balanced on the photograph."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[3, 4, 6, 3],
        hidden_sizes=[64, 128, 320, 512],
        decoder_hidden_size=768,
        num_labels=labels,
        id2label={number: f"label {number}" for number in range(labels)},
        label2id={f"label {number}": number for number in range(labels)},
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    processor = transformers.SegformerImageProcessorPil(size={"height": 512, "width": 512})
    # Random weights give one class everywhere, which no photograph shows: centre the logits of each class.
    with torch.inference_mode(), Image.open(photo) as picture:
        logits = model(**processor(picture, return_tensors="pt")).logits[0]
    with torch.no_grad():
        model.decode_head.classifier.bias -= logits.mean(dim=(1, 2))
    return _save(folder, model, processor)


def vit_b16(folder: Path) -> Path:
    """Write ViT-B/16 with 1000 labels for 224 x 224."""
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)).eval()
    return _save(folder, model, transformers.ViTImageProcessorPil())


def detr_r50(folder: Path) -> Path:
    """Write DETR with ResNet-50 and 91 labels; the shorter side 800, the longer at most 1333."""
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(out_features=["stage4"])
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, use_pretrained_backbone=False, num_labels=91
    )
    model = transformers.DetrForObjectDetection(config).eval()
    return _save(folder, model, transformers.DetrImageProcessorPil())


def _save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def peers(task: str, folder: Path, work: Callable[[Any], object], best: bool) -> list[Side]:
    """Return `transformers`' pipeline at its default, and where `best`, compiled in fp32 and in bf16."""
    sides = [Side(PEER_DEFAULT, lambda pipe=pipeline(task, folder): work(pipe))]
    if best:
        fast, half = pipeline(task, folder), pipeline(task, folder, torch.bfloat16)
        for pipe in (fast, half):
            pipe.model.forward = torch.compile(pipe.model.forward)
        sides += [Side(PEER_COMPILED, lambda: work(fast)), Side(PEER_BEST, lambda: work(half))]
    return sides


def pipeline(task: str, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Open a pipeline as its documentation says, with the image processor that needs no torchvision."""
    processors = {
        "image-segmentation": transformers.SegformerImageProcessorPil,
        "image-classification": transformers.ViTImageProcessorPil,
        "object-detection": transformers.DetrImageProcessorPil,
    }
    processor = processors[task].from_pretrained(folder)
    return transformers.pipeline(task, model=str(folder), image_processor=processor, dtype=dtype, device="cpu")


def ours(folder: Path, work: Callable[[Any], object]) -> list[Side]:
    """Return imagesmith with exact arithmetic and with bf16, both on OpenVINO."""
    exact = imagesmith.load(str(folder), engine="openvino", precision="fp32")
    half = imagesmith.load(str(folder), engine="openvino", precision="bf16")
    return [Side(OURS, lambda: work(exact)), Side(OURS_BF16, lambda: work(half))]


def network_sides(folder: Path, kind: Any, inputs: dict[str, np.ndarray], best: bool) -> list[Side]:
    """Return the network alone, without decoding and answers: eager and compiled against our two engines."""
    eager = kind.from_pretrained(folder, dtype=torch.float32).eval()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}

    def run(model: Any, dtype: torch.dtype = torch.float32) -> None:
        with torch.inference_mode():
            model(**{name: tensor.to(dtype) for name, tensor in tensors.items()})

    sides = [Side(PEER_DEFAULT, lambda: run(eager))]
    if best:
        compiled = torch.compile(kind.from_pretrained(folder, dtype=torch.float32).eval())
        half = torch.compile(kind.from_pretrained(folder, dtype=torch.bfloat16).eval())
        sides += [Side(PEER_COMPILED, lambda: run(compiled)), Side(PEER_BEST, lambda: run(half, torch.bfloat16))]
    pool = imagesmith.api.open_pool()
    spec = imagesmith.api.find_model(str(folder), None)
    for name, precision in ((OURS, "fp32"), (OURS_BF16, "bf16")):
        options = imagesmith.api.REQUESTS[spec.task](engine="openvino", precision=precision)
        sides.append(Side(name, lambda engine=pool.open(spec, options): engine.run(inputs)))
    return sides
