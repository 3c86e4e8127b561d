"""How long it takes to start: the import, and one photograph from the command line, against transformers.

    python benchmarks/bench_start.py [--json PATH]

Every run is a new process. The photograph is segmented by a SegFormer-B0 of 59 classes with random weights, from an
ONNX file as the starters have it; the peer is a script of four lines around transformers' pipeline, on the same
weights, at its default and at its lightest (only the classes named, no pipeline). The claims: `import imagesmith`
costs less than 0.3 s above bare Python and loads no engine; one photograph takes about 1 s, whole process.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from harness import Side, claim, finish, parser, take_turns, versions
from real_size import workplace, write_photo

import imagesmith

SCRIPT = """
from transformers import SegformerImageProcessorPil, pipeline
processor = SegformerImageProcessorPil.from_pretrained({model!r})
pipe = pipeline("image-segmentation", model={model!r}, image_processor=processor)
print(len(pipe({photo!r})))
"""
LIGHT = """
import torch
from PIL import Image
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessorPil
processor = SegformerImageProcessorPil.from_pretrained({model!r})
model = SegformerForSemanticSegmentation.from_pretrained({model!r})
image = Image.open({photo!r})
with torch.inference_mode():
    outputs = model(**processor(image, return_tensors="pt"))
print(processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])[0].shape)
"""
HEAVY = ("torch", "onnxruntime", "openvino", "transformers", "scipy", "lightning")


def segformer_b0(folder: Path) -> Path:
    """Write SegFormer-B0 with 59 labels, weights and ONNX."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(num_labels=59)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    size = {"height": 288, "width": 192}
    transformers.SegformerImageProcessorPil(size=size).save_pretrained(folder)
    from imagesmith.exporting.export import convert
    from imagesmith.models import catalogue, files

    spec = catalogue.find(str(folder))
    shutil.copy(convert(spec, files.locate(spec, "weights"), "onnx"), folder / "model.onnx")
    return folder


def process(*arguments: str) -> None:
    """Run a new process to its end; what it prints is dropped, its failure is not."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)[:200]} failed:\n{done.stderr[-2000:]}")


def loaded_at_import() -> list[str]:
    """Return which heavy libraries `import imagesmith` loads: none, or the benchmark is void."""
    code = f"import sys, imagesmith, json; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    return json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))


def main() -> None:
    chosen = parser(__doc__.splitlines()[0], rounds=7).parse_args()
    python = sys.executable
    if heavy := loaded_at_import():
        raise SystemExit(f"import imagesmith loads {heavy}")
    imports = take_turns(
        "import",
        [
            Side("bare python", lambda: process(python, "-c", "pass")),
            Side("import imagesmith", lambda: process(python, "-c", "import imagesmith")),
            Side("imagesmith.segment ready to call", lambda: process(python, "-c", "from imagesmith import segment")),
            Side("import transformers.pipeline", lambda: process(python, "-c", "from transformers import pipeline")),
        ],
        chosen.rounds,
    )
    middle = {name: statistics.median(seconds) for name, seconds in imports.seconds.items()}
    above = middle["import imagesmith"] - middle["bare python"]
    imports.notes["import imagesmith above bare python"] = f"{above * 1000:.0f} ms"
    claim(
        imports,
        "ready imagesmith over transformers",
        "import transformers.pipeline",
        "imagesmith.segment ready to call",
    )
    with workplace() as folder:
        photo = str(write_photo(folder / "photo.jpg", 1024, 768))
        model = str(segformer_b0(folder / "b0"))
        command = [
            str(Path(python).with_name("imagesmith")),
            "segment",
            photo,
            "--model",
            model,
            "--out",
            str(folder / "out"),
        ]
        single = take_turns(
            "one photograph, whole process",
            [
                Side("imagesmith segment", lambda: process(*command)),
                Side("transformers, pipeline", lambda: process(python, "-c", SCRIPT.format(model=model, photo=photo))),
                Side("transformers, lightest", lambda: process(python, "-c", LIGHT.format(model=model, photo=photo))),
            ],
            chosen.rounds,
        )
    claim(single, "over the lightest script", "transformers, lightest", "imagesmith segment")
    claim(single, "over the pipeline", "transformers, pipeline", "imagesmith segment")
    used = {**versions("torch", "transformers", "onnxruntime", "openvino"), "imagesmith": imagesmith.__version__}
    finish("start", [imports, single], used, chosen.json)


if __name__ == "__main__":
    main()
