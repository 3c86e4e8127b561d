"""Search the hub: what each model does, its labels, its licence, and whether that allows commercial use."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imagesmith.core.errors import BadWeights, UnknownModel
from imagesmith.core.specs import Task
from imagesmith.models.folder import CONFIG, architecture_of, labels_of
from imagesmith.models.hub import TIMEOUT, Unreachable, endpoint_of, is_offline, stated_license, translated
from imagesmith.models.hubcache import REPOSITORY_ID
from imagesmith.models.licenses import allows_commercial

PIPELINES: dict[Task, str] = {
    "segment": "image-segmentation",
    "classify": "image-classification",
    "detect": "object-detection",
}
"""The hub's word for each task."""

_CONFIG_BYTES = 2 * 2**20


@dataclass(frozen=True)
class HubModel:
    """One model the hub lists."""

    name: str
    task: Task | None
    license: str | None
    commercial: bool | None
    labels: tuple[str, ...]
    """Empty where the model's configuration could not be read."""
    native: bool
    """Runs on the native path; others need the extra [torch]."""
    downloads: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "labels": list(self.labels)}


def search(
    query: str | None = None,
    *,
    task: Task | None = None,
    license: str | None = None,
    commercial_only: bool = False,
    limit: int = 20,
    offline: bool | None = None,
) -> list[HubModel]:
    """Search the hub for models, most downloaded first; licences and labels come from each model's own files.

    `commercial_only` leaves out models whose licence forbids commercial use. Raises `HubError`.
    """
    if is_offline(offline):
        raise Unreachable("The hub cannot be searched in offline mode; leave out --offline, or unset HF_HUB_OFFLINE.")
    with translated("The list of models"):
        from huggingface_hub import HfApi

        found = list(
            HfApi(endpoint=endpoint_of()).list_models(
                search=query,
                pipeline_tag=PIPELINES[task] if task else None,
                filter=[f"license:{license.lower()}"] if license else None,
                sort="downloads",
                limit=limit,
            )
        )
    listed = [info for info in found if isinstance(info.id, str) and REPOSITORY_ID.fullmatch(info.id)]
    with ThreadPoolExecutor(max_workers=8) as workers:
        configs = list(workers.map(_config, [info.id for info in listed]))
    models = [_hub_model(info, config) for info, config in zip(listed, configs, strict=True)]
    return [model for model in models if not (commercial_only and model.commercial is False)]


def _config(repository: str) -> dict[str, Any]:
    """Read a listed model's config.json without keeping it; empty where that does not work."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    try:
        url = hf_hub_url(repository, CONFIG, endpoint=endpoint_of())
        answer = get_session().get(url, headers=build_hf_headers(), timeout=TIMEOUT)
        value = json.loads(answer.content) if answer.status_code == 200 and len(answer.content) < _CONFIG_BYTES else {}
    except (HTTPError, OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _hub_model(info: Any, config: dict[str, Any]) -> HubModel:
    words: dict[str, Task] = {word: task for task, word in PIPELINES.items()}
    task, native = words.get(info.pipeline_tag), False
    labels: tuple[str, ...] = ()
    try:
        architecture, task = architecture_of(config, info.id)
        native = architecture != "transformers"
        labels = labels_of(config, Path(CONFIG))[0] if config.get("id2label") else ()
    except (UnknownModel, BadWeights):
        pass  # a listing shows what it can; loading the model says what is wrong
    license = stated_license(None, _texts(info.tags))
    return HubModel(info.id, task, license, allows_commercial(license), labels, native, int(info.downloads or 0))


def _texts(values: Iterable[Any] | None) -> list[str]:
    return [value for value in values or () if isinstance(value, str)]
