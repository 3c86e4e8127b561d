"""Where a training starts from: initial weights, what is frozen, and how fast each part learns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from imagesmith.core.errors import BadInput, BadWeights, did_you_mean


@dataclass(frozen=True)
class Adoption:
    """What became of another model's weights."""

    loaded: int
    """Tensors taken over whole."""
    renamed_rows: int
    """Rows of the last layer taken over because a label has the same name."""
    fresh: tuple[str, ...]
    """Tensors that start from random values."""


def adopt(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    old_labels: Sequence[str] = (),
    new_labels: Sequence[str] = (),
) -> Adoption:
    """Start ``module`` from another model's weights; a layer of another size starts fresh.

    Where the labels differ, the rows of the last layer that belong to a label both models know are kept. Raises
    `BadWeights` where nothing fits.
    """
    own = module.state_dict()
    rows = [(old_labels.index(name), new) for new, name in enumerate(new_labels) if name in old_labels]
    loaded, renamed, fresh = {}, 0, []
    for name, tensor in own.items():
        other = weights.get(name)
        if other is not None and other.shape == tensor.shape and not _is_head(name, tensor, old_labels, new_labels):
            loaded[name] = other.to(tensor.dtype)
            continue
        if other is not None and rows and _rows_fit(other, tensor, len(old_labels), len(new_labels)):
            merged = tensor.clone()
            for old, new in rows:
                merged[new] = other[old].to(tensor.dtype)
            own[name] = merged
            renamed += len(rows)
            continue
        fresh.append(name)
    if not loaded:
        raise BadWeights("The model to start from has no layer in common with the recipe's; compare their config.json.")
    module.load_state_dict({**own, **loaded})
    return Adoption(len(loaded), renamed, tuple(fresh))


def _is_head(name: str, tensor: Tensor, old: Sequence[str], new: Sequence[str]) -> bool:
    """Tell whether a tensor has one row per label and the labels are not the same ones."""
    return "classifier" in name and len(tensor) == len(new) and bool(old) and list(old) != list(new)


def _rows_fit(old: Tensor, new: Tensor, old_count: int, new_count: int) -> bool:
    return old.ndim > 0 and len(old) == old_count and len(new) == new_count and old.shape[1:] == new.shape[1:]


def matching(names: Iterable[str], word: str, parts: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the parameter names that a part's name, or a pattern, stands for; none is an error."""
    known = list(names)
    patterns = parts.get(word, (word,))
    found = [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        near = did_you_mean(word, parts) or f" Parts: {', '.join(parts)}."
        raise BadInput(f'The network has no part "{word}", and no parameter matches it as a pattern.{near}')
    return found


def freeze(module: nn.Module, words: Sequence[str], parts: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Stop the named parts from learning; return the frozen parameters' names. Leaving nothing to learn is an error."""
    names = [name for name, _ in module.named_parameters()]
    frozen = {name for word in words for name in matching(names, word, parts)}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if frozen and len(frozen) == len(names):
        raise BadInput("The recipe freezes every part of the network; leave at least one to learn.")
    return sorted(frozen)


def hold_frozen_in_eval(module: nn.Module) -> None:
    """Put submodules that learn nothing into evaluation mode, so that frozen batch norms and dropouts stand still."""
    for child in module.modules():
        own = list(child.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            child.eval()


def parameter_groups(
    module: nn.Module,
    learning_rate: float,
    weight_decay: float,
    factors: Mapping[str, float],
    parts: Mapping[str, tuple[str, ...]],
) -> list[dict[str, Any]]:
    """Group what learns by learning rate and decay; biases and normalisation are not decayed."""
    names = [name for name, _ in module.named_parameters()]
    factor_of = {name: factor for word, factor in factors.items() for name in matching(names, word, parts)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (learning_rate * factor_of.get(name, 1.0), weight_decay if parameter.ndim > 1 else 0.0)
            groups.setdefault(key, []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


class MovingAverage:
    """Exponential moving average of what learns and of the running statistics, kept beside the network."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: tensor.detach().clone() for name, tensor in _moving(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the network; the first steps count more, so that the random start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = _moving(module)
        floating = [name for name, tensor in current.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.values[name] for name in floating], [current[name].detach() for name in floating], 1 - decay
        )
        for name in current.keys() - set(floating):
            self.values[name].copy_(current[name])

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the network's values and the average; a second call undoes the first."""
        for name, tensor in _moving(module).items():
            held = self.values[name].clone()
            self.values[name].copy_(tensor)
            tensor.copy_(held)


def _moving(module: nn.Module) -> dict[str, Tensor]:
    """Return what changes in training: learning parameters and buffers (of modules that learn)."""
    learning = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {**learning, **dict(module.named_buffers())}


def rate_factor(step: int, steps: int, warmup_steps: int, schedule: str, power: float) -> float:
    """Return the factor of the learning rate at a step (from 0).

    >>> [round(rate_factor(step, 10, 2, "poly", 1.0), 2) for step in (0, 1, 5, 9)]
    [0.5, 0.9, 0.5, 0.1]
    """
    if step < warmup_steps:
        warm = (step + 1) / warmup_steps
    else:
        warm = 1.0
    progress = min(step / steps, 1.0)
    if schedule == "poly":
        return warm * (1 - progress) ** power
    if schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * progress))
    return warm
