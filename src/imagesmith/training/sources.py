"""How the public sources lie on disk, and how each becomes a pack: one function per source.

Every builder takes the unpacked source, the folder to write, the part wanted and a function to tell progress, and
returns the number of photographs and a few words about the rest. The parts are those the starters were taught with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from imagesmith.core.errors import BadInput, MissingExtra
from imagesmith.evaluation.datasets import read_coco
from imagesmith.evaluation.splits import person_of
from imagesmith.image.decode import decode_image
from imagesmith.image.metadata import write_json

Part = Literal["train", "test", "all"]
"""Which part of the source: what the starters were taught with, what was kept from them, or both."""
Progress = Callable[[int, int], None]
"""Told how many photographs are done, and of how many."""

CCP_TRAIN = 804
CCP_SIDE = 576
CELEBA_TRAIN = 900
CELEBA_SIDE = 384
CELEBA_PARTS: tuple[str, ...] = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear")
CELEBA_PARTS += ("mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth")
"""In the order of CelebAMask-HQ's class ids from 1; a later part lies over an earlier one."""
LFW_SIDE = 160
LFW_PER_PERSON = 5
PENN_TEST_EVERY = 6
COCO_TRAIN = 128
FINE, USUAL = 88, 85
"""JPEG qualities."""


def build_ccp(source: Path, target: Path, part: Part, tell: Progress) -> tuple[int, str]:
    """Resize the photographs of Clothing Co-Parsing that have a label for every pixel."""
    matrices = sorted((source / "annotations" / "pixel-level").glob("*.mat"))
    numbers = [path for path in matrices if path.stem.isdigit()]
    chosen = [path for path in numbers if _in_part(int(path.stem) <= CCP_TRAIN, part)]
    labels = _ccp_labels(source)
    for path in _told(chosen, tell):
        photo = _photo(source / "photos" / f"{path.stem}.jpg")
        mask = np.asarray(_load_matrix(path, "groundtruth"))
        if mask.shape != (photo.height, photo.width) or mask.min() < 0 or mask.max() >= len(labels):
            raise BadInput(
                f'"{path}" should hold classes 0 to {len(labels) - 1} for {photo.height} x {photo.width} pixels, but '
                f"holds {mask.min()} to {mask.max()} for {' x '.join(map(str, mask.shape))}."
            )
        _write_pair(target, path.stem, photo, mask.astype(np.uint8), CCP_SIDE)
    _write_labels(target, labels)
    return len(chosen), f"{len(labels)} classes"


def _ccp_labels(source: Path) -> tuple[str, ...]:
    cells = np.asarray(_load_matrix(source / "label_list.mat", "label_list"), dtype=object).ravel()
    names = [str(np.asarray(cell).ravel()[0]) for cell in cells]
    return tuple("background" if name == "null" else name for name in names)


def _load_matrix(path: Path, key: str) -> Any:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise MissingExtra("Reading CCP's .mat files", "eval") from None
    try:
        return loadmat(path)[key]
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MatReadError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f'"{path}" cannot be read as a MATLAB file with "{key}" ({reason}).') from None


def build_celebamask(source: Path, target: Path, part: Part, tell: Progress) -> tuple[int, str]:
    """Lay each face's parts over each other to one mask."""
    photos = [path for path in (source / "CelebA-HQ-img").glob("*.jpg") if path.stem.isdigit()]
    photos.sort(key=lambda path: int(path.stem))
    chosen = [path for path in photos if _in_part(int(path.stem) < CELEBA_TRAIN, part)]
    annotations = source / "CelebAMask-HQ-mask-anno"
    for path in _told(chosen, tell):
        number = int(path.stem)
        folder = annotations / str(number // 2000)
        _write_pair(target, f"{number:05}", _photo(path), _celeba_mask(folder, number), CELEBA_SIDE)
    _write_labels(target, ("background", *CELEBA_PARTS))
    return len(chosen), f"{len(CELEBA_PARTS) + 1} classes"


def _celeba_mask(folder: Path, number: int) -> NDArray[np.uint8]:
    """Lay the parts of one face over each other, 512 x 512; a part without a file is not in the picture."""
    mask: NDArray[np.uint8] | None = None
    for label, name in enumerate(CELEBA_PARTS, start=1):
        path = folder / f"{number:05}_{name}.png"
        if not path.exists():
            continue
        drawn = decode_image(path).pixels[..., 0] > 127
        mask = np.zeros(drawn.shape, dtype=np.uint8) if mask is None else mask
        if drawn.shape != mask.shape:
            raise BadInput(f'"{path}" is {drawn.shape[1]} x {drawn.shape[0]}, not the size of the face\'s other parts.')
        mask[drawn] = label
    if mask is None:
        raise BadInput(f'There is no part of face {number:05} in "{folder}"; unpack CelebAMask-HQ-mask-anno whole.')
    return mask


def build_lfw(source: Path, target: Path, part: Part, tell: Progress) -> tuple[int, str]:
    """Crop the faces of LFW, few of each person, into a folder per sex."""
    if part == "test":
        raise BadInput("LFW has no test part: the validation split is by person; use train or all.")
    listed = [(sex, name) for sex in ("female", "male") for name in _lfw_names(source, sex)]
    taken: dict[str, int] = {}
    chosen = []
    for sex, name in listed:
        person = person_of(name)
        taken[person] = taken.get(person, 0) + 1
        if part == "all" or taken[person] <= LFW_PER_PERSON:
            chosen.append((sex, name, person))
    root = next((folder for folder in ("lfw-deepfunneled", "lfw_funneled", "lfw") if (source / folder).is_dir()), ".")
    for sex, name, person in _told(chosen, tell):
        photo = _photo(source / root / person / name)
        left, top = (photo.width - LFW_SIDE) // 2, (photo.height - LFW_SIDE) // 2
        face = photo.crop((left, top, left + LFW_SIDE, top + LFW_SIDE))
        _write_jpeg(target / sex / name, face, USUAL)
    return len(chosen), "2 classes"


def _lfw_names(source: Path, sex: str) -> list[str]:
    path = source / f"{sex}_names.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f'"{path}" cannot be read ({error}); it should list the photographs of one sex.') from None
    names = {line.strip() for line in lines if line.strip()}
    wrong = [name for name in names if not re.fullmatch(r"[^/\\]+_\d+\.jpg", name)]
    if wrong:
        raise BadInput(f'"{path}" should list file names such as Ann_Lee_0001.jpg, but has "{min(wrong)}".')
    return sorted(names)


_PENN_BOX = re.compile(r"Bounding box for object \d+ .*?: \((\d+), (\d+)\) - \((\d+), (\d+)\)")


def build_pennfudan(source: Path, target: Path, part: Part, tell: Progress) -> tuple[int, str]:
    """Turn Penn-Fudan's text files into COCO annotations."""
    photos = sorted((source / "PNGImages").glob("*.png"))
    chosen = [path for path in photos if _in_part(_last_number(path.stem) % PENN_TEST_EVERY != 0, part)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path in _told(chosen, tell):
        photo = _photo(path)
        name = f"{path.stem}.jpg"
        _write_jpeg(target / "images" / name, photo, FINE)
        identity = len(images) + 1
        images.append({"id": identity, "file_name": name, "width": photo.width, "height": photo.height})
        for box in _penn_boxes(source / "Annotation" / f"{path.stem}.txt"):
            annotations.append(_annotation(len(annotations) + 1, identity, 1, box, box[2] * box[3]))
    write_json(target / "annotations.json", _coco(images, annotations, [{"id": 1, "name": "person"}]))
    return len(chosen), f"{len(annotations)} persons"


def _penn_boxes(path: Path) -> list[list[float]]:
    """Read boxes as x, y, width, height; the file counts pixels from 1 and includes the last."""
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise BadInput(f'"{path}" cannot be read ({error.strerror}); unpack Penn-Fudan whole.') from None
    corners = [tuple(map(int, found)) for found in _PENN_BOX.findall(text)]
    if not corners:
        raise BadInput(f'"{path}" names no bounding box; it is no annotation of Penn-Fudan.')
    return [
        [float(left - 1), float(top - 1), float(right - left + 1), float(bottom - top + 1)]
        for left, top, right, bottom in corners
    ]


def build_coco(source: Path, target: Path, part: Part, tell: Progress) -> tuple[int, str]:
    """Take the first images of an instances file, with all its categories and their own ids."""
    files = sorted(source.glob("annotations/instances_*.json")) or sorted(source.glob("instances_*.json"))
    if len(files) != 1:
        raise BadInput(f'"{source}" should hold one instances_*.json, but holds {len(files)}.')
    truth = read_coco(files[0])
    ordered = sorted(truth["images"], key=lambda image: image["file_name"])
    chosen = ordered[:COCO_TRAIN] if part == "train" else ordered[COCO_TRAIN:] if part == "test" else ordered
    folder = source / files[0].stem.removeprefix("instances_")
    images = []
    for image in _told(chosen, tell):
        photo = _photo((folder if folder.is_dir() else source / "images") / Path(image["file_name"]).name)
        name = f"{Path(image['file_name']).stem}.jpg"
        _write_jpeg(target / "images" / name, photo, USUAL)
        images.append({"id": image["id"], "file_name": name, "width": photo.width, "height": photo.height})
    kept = {image["id"] for image in images}
    about = [item for item in truth["annotations"] if item["image_id"] in kept]
    annotations = [
        _annotation(
            number,
            item["image_id"],
            item["category_id"],
            [float(value) for value in item["bbox"]],
            float(item.get("area", item["bbox"][2] * item["bbox"][3])),
            int(item.get("iscrowd", 0)),
        )
        for number, item in enumerate(about, start=1)
    ]
    categories = [{"id": category["id"], "name": category["name"]} for category in truth["categories"]]
    write_json(target / "annotations.json", _coco(images, annotations, categories))
    return len(images), f"{len(annotations)} objects of {len(categories)} categories"


# -- reading and writing ---------------------------------------------------------------------------------------------


def _in_part(is_train: bool, part: Part) -> bool:
    return part == "all" or is_train == (part == "train")


def _told(items: Iterable[Any], tell: Progress) -> Iterator[Any]:
    listed = list(items)
    for done, item in enumerate(listed, start=1):
        yield item
        tell(done, len(listed))


def _last_number(stem: str) -> int:
    digits = re.search(r"(\d+)$", stem)
    return int(digits.group(1)) if digits else 0


def _photo(path: Path) -> PillowImage.Image:
    return PillowImage.fromarray(decode_image(path).pixels)


def _write_pair(target: Path, stem: str, photo: PillowImage.Image, mask: NDArray[np.uint8], longest: int) -> None:
    """Write photograph and mask at one size, the longer side at most `longest`; a mask is never interpolated."""
    scale = min(1.0, longest / max(photo.size))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    _write_jpeg(target / "images" / f"{stem}.jpg", photo.resize(size, PillowImage.Resampling.LANCZOS), FINE)
    small = PillowImage.fromarray(mask).resize(size, PillowImage.Resampling.NEAREST)
    (target / "masks").mkdir(exist_ok=True)
    small.save(target / "masks" / f"{stem}.png", optimize=True)


def _write_jpeg(path: Path, image: PillowImage.Image, quality: int) -> None:
    path.parent.mkdir(exist_ok=True)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    path.write_bytes(buffer.getvalue())


def _write_labels(target: Path, labels: Iterable[str]) -> None:
    write_json(target / "labels.json", {str(number): name for number, name in enumerate(labels)})


def _annotation(
    number: int, image: int, category: int, box: list[float], area: float, crowd: int = 0
) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}


def _coco(images: list[Any], annotations: list[Any], categories: list[Any]) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": categories}
