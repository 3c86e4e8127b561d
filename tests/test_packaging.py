"""What people install: the wheels are built, put into a clean environment, and one command runs there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command and return what it printed; its complaint is the failure's message."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wheels")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    for project in (ROOT, ROOT / "starters"):
        run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, project)
    return sorted(folder.glob("*.whl"))


def test_wheels_hold_what_they_need_and_no_photographs(wheels: list[Path]) -> None:
    names = {name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()}
    assert "imagesmith/py.typed" in names
    assert any(name.startswith("imagesmith/models/specs/") for name in names)
    assert any(name.startswith("imagesmith/models/labels/") for name in names)
    assert "imagesmith_starters/models/clothes/model.onnx" in names
    assert not [name for name in names if name.endswith((".jpg", ".jpeg", ".pt", ".bin", ".ckpt"))]
    assert sum(wheel.stat().st_size for wheel in wheels if "starters" in wheel.name) < 60e6


def test_clean_environment_segments_a_photograph_without_torch(wheels: list[Path], tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "env")
    binaries = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    cpu = next(f"{wheel}[cpu]" for wheel in wheels if "starters" not in wheel.name)
    starters = next(wheel for wheel in wheels if "starters" in wheel.name)
    pip = (binaries / "python", "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "install", "-c", ROOT / "constraints.txt", cpu, starters)
    make_photo = "from PIL import Image; Image.linear_gradient('L').convert('RGB').save('photo.jpg')"
    run(binaries / "python", "-c", make_photo, cwd=tmp_path)
    answer = json.loads(run(binaries / "imagesmith", "segment", "photo.jpg", "--json", cwd=tmp_path))
    assert answer[0]["model"] == "starter/clothes"
    assert abs(sum(region["share"] for region in answer[0]["regions"]) - 1) < 1e-3
    missing = subprocess.run([str(binaries / "python"), "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode != 0
