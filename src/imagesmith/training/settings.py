"""The parts of a recipe that every task shares: variation of the pictures, stages, optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from imagesmith.core.specs import Record

Probability = Annotated[float, Field(ge=0, le=1)]
SizeHW = tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]]


class Augmentation(Record):
    """How training photographs are varied; every probability is per photograph."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest magnification; 1 shows the whole photograph."""
    aspect: float = Field(default=0.15, ge=0, le=1)
    """Largest change of the aspect ratio, as a logarithm."""
    upper_body: Probability = 0.0
    """Show only the upper part of what is labelled: people photograph themselves half-length."""
    flip: Probability = 0.5
    """Mirror; labels that have a side trade places."""
    rotate: float = Field(default=10.0, ge=0, le=180)
    """Largest rotation in degrees."""
    rotate_probability: Probability = 0.25
    color: float = Field(default=0.3, ge=0, le=1)
    """Strength of changes of brightness, contrast, saturation, white balance and gamma."""
    degrade: Probability = 0.1
    """Blur, or add noise."""
    copy_paste: Probability = 0.0
    """Paste what is labelled in another photograph on top."""
    recolor: Probability = 0.0
    """Per class that may be recoloured: give it another colour and keep its shading."""
    recolor_labels: tuple[str, ...] | None = None
    """Labels that may be recoloured; unset is every label but the background."""
    erase: Probability = 0.0
    """Grey out a random rectangle (classification)."""

    @model_validator(mode="after")
    def _check_scale(self) -> Augmentation:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must rise from above 0, such as [0.5, 2], not {list(self.scale)}")
        return self


class Stage(Record):
    """A part of the training with its own size: small pictures first are several times cheaper."""

    until: float = Field(default=1.0, gt=0, le=1)
    """Share of all steps at which the stage ends."""
    size_hw: SizeHW
    """Height and width of the training pictures."""
    batch_size: int | None = Field(default=None, ge=1)
    """Unset takes train.batch_size."""
    rate: float = Field(default=1.0, gt=0)
    """Factor of the learning rate in this stage."""
    loss_stride: int = Field(default=4, ge=1)
    """Segmentation: the loss looks at every n-th pixel a side (the network answers at every fourth)."""
    augment: Augmentation | None = None
    """Variation in this stage; unset takes the recipe's."""


class TrainSettings(Record):
    """How long and how fast to learn."""

    steps: int = Field(ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=16, ge=1)
    stages: tuple[Stage, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=6e-5, gt=0)
    learning_rates: dict[str, float] = Field(default_factory=dict)
    """Factor of the learning rate by part of the network, such as {head: 10}."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Not applied to biases and normalisation."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: float = Field(default=1.0, gt=0)
    """Exponent of the poly schedule."""
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest norm of all gradients together."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per optimizer step."""
    ema: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the weights, which is what is measured and kept; unset is none."""
    freeze: tuple[str, ...] = ()
    """Parts that do not learn: encoder, head, backbone, stage0 ..., or a pattern over parameter names."""
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    """Processor threads; unset leaves PyTorch's choice."""
    log_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=500, ge=1)
    """Steps between measurements; the best weights so far are kept."""
    save_every: int = Field(default=500, ge=1)
    """Steps between checkpoints to resume from."""
    keep_last: int = Field(default=2, ge=1)
    """How many checkpoints stay."""

    @model_validator(mode="after")
    def _check_stages(self) -> TrainSettings:
        ends = [stage.until for stage in self.stages]
        if ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError(f"the stages' until must rise and end at 1, not {ends}")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} exceeds the {self.steps} steps")
        return self

    def stage_at(self, step: int) -> Stage:
        """Return the stage a step (from 0) belongs to."""
        return next((stage for stage in self.stages if step < round(stage.until * self.steps)), self.stages[-1])

    def batch_size_at(self, step: int) -> int:
        """Return how many examples a step (from 0) sees, over all accumulated batches."""
        return (self.stage_at(step).batch_size or self.batch_size) * self.accumulate
