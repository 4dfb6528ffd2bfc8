"""The options of a job: every hyperparameter, the named recipes with where each value comes from, and the rest."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.contract import Name

OFFICIAL = "cifar10"
"""The value of `--data` for the official download; every other value is a folder."""

IMAGE_SIZE = 32
"""Height and width in pixels of CIFAR-10's images, and the default for others."""

SMALL_SCALE = 3 / 4
"""Relative height and width of the images in low-resolution epochs, whose steps take about 60 % of the time."""

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Recipe(BaseModel):
    """Hyperparameters of one run. The defaults are the article's, or Keras's where the article has none.

    The default of a new field must not change training, because older runs resume with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    residual: bool = Field(
        default=True, description="shortcuts in the units; without them, it is the article's plain network"
    )
    size: Literal[32, 48, 64, 96] = Field(32, description="height and width in pixels of the images")
    epochs: int = Field(50, ge=1, description="passes over the training split")
    batch_size: int = Field(128, ge=1, description="images per step, over all GPUs together")
    optimizer: Literal["adam", "sgd", "muon"] = Field("adam", description="sgd uses Nesterov momentum 0.9")
    learning_rate: float = Field(0.001, gt=0, description="peak learning rate")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate after the warm-up")
    warmup: Fraction = Field(0.0, description="share of all steps in which a cosine schedule rises to its peak")
    weight_decay: float = Field(0.0, ge=0, description="decoupled: each step shrinks weights by this × learning rate")
    label_smoothing: Fraction = Field(0.0, description="probability mass spread evenly over all classes")
    dropout: Fraction = Field(0.25, description="share of features dropped before the classifier")
    normalization: Literal["position", "channel"] = Field(
        "position", description="divide by the deviation of each pixel position (the article), or of each channel"
    )
    rotation: float = Field(10.0, ge=0, le=180, description="rotate by up to this many degrees either way")
    shift: Fraction = Field(5 / 32, description="shift by up to this share of height and width either way")
    flip: bool = Field(default=True, description="mirror half of the images")
    alternating_flip: bool = Field(
        default=False, description="mirror each image in every other epoch, instead of at random"
    )
    scale: Fraction = Field(0.0, description="scale the content by a random factor from 1 / (1 + this) to 1 + this")
    scale_share: float = Field(1.0, ge=0, le=1, description="share of the images whose content is scaled")
    aspect: Fraction = Field(0.0, description="also stretch scaled content by a random factor of up to 1 + this")
    color: Fraction = Field(0.0, description="change brightness, contrast and saturation by up to this share each")
    gray: Fraction = Field(0.0, description="share of the images turned grey")
    fill: Literal["nearest", "reflect"] = Field(
        "nearest", description="pixels beyond the border of the content: the last pixel repeated, or the mirror image"
    )
    plain: float = Field(
        0.0, ge=0, le=1, description="share of the images with a plain colour beyond the border instead"
    )
    jpeg: float = Field(0.0, ge=0, le=1, description="share of the images compressed as JPEG, at random qualities")
    cutout: int = Field(
        0, ge=0, lt=IMAGE_SIZE, description="side in pixels of the square that is blanked in each image"
    )
    cutmix: float = Field(
        0.0, ge=0, le=1, description="share of the images in which a rectangle shows another image (CutMix)"
    )
    low_resolution: Fraction = Field(
        0.0,
        description=f"share of the epochs, the first ones, that train on images of {SMALL_SCALE:.0%} as high and wide",
    )
    ema: Fraction = Field(
        0.0, description="momentum of the weights' moving average, which is evaluated and exported; 0: none"
    )
    patience: int = Field(
        0,
        ge=0,
        description="end after this many epochs without a lower validation loss; 0: never (the best epoch is kept)",
    )
    validation: float = Field(0.1, gt=0, lt=1, description="share of the training images held out, stratified")
    seed: int = Field(
        0, ge=0, lt=2**31, description="random seed of the split, the initial weights, the order and the augmentation"
    )

    @model_validator(mode="after")
    def _require_effect(self) -> Self:
        if self.warmup and self.schedule == "constant":
            raise ValueError("--warmup belongs to a cosine schedule; with --schedule constant it must be 0")
        if self.alternating_flip and not self.flip:
            raise ValueError("--alternating-flip changes how --flip mirrors; it needs --flip")
        if self.aspect and not self.scale:
            raise ValueError("--aspect stretches what --scale scales; it needs --scale")
        return self


_COMMON = Recipe(
    epochs=24,
    optimizer="muon",  # 81.6 % after 2 epochs, where sgd has 78.0 % and adam 74.1 % (benchmarks/results/recipes.md)
    learning_rate=0.003,
    schedule="cosine",  # decays to zero, which short runs need
    warmup=0.1,  # at first, the optimizer's averages have few gradients
    weight_decay=0.1,
    label_smoothing=0.1,  # as is common; the export undoes it
    dropout=0.0,  # a run this short does not overfit
    normalization="channel",  # pixel positions mean little in shifted images
    rotation=0.0,  # the data are upright
    shift=0.125,  # 4 of 32 pixels, as is common for CIFAR-10
    # People's photographs differ from the data mostly in scale, framing and colour.
    scale=0.3,
    scale_share=0.5,
    color=0.2,
    gray=0.05,
    fill="reflect",  # looks more natural than streaks
    validation=0.05,  # 2,500 of CIFAR-10's images, which measure accuracy to about 1 %
)

_LONGER: dict[str, Any] = {
    "low_resolution": 0.5,  # colours and shapes can be learned from smaller images
    "alternating_flip": True,  # K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024)
    # Objects in people's pictures are smaller, stretched, on white or in a frame, and most are JPEGs.
    "scale": 0.45,
    "scale_share": 0.35,
    "aspect": 0.2,
    "plain": 0.3,
    "jpeg": 0.35,
}
"""Changes for runs on thousands of images."""

RECIPES = {
    # Adam(0.001), batch 128, 50 epochs: as published.
    "article": Recipe(),
    # One to two hours on two CPU cores with bfloat16
    "fast": Recipe.model_validate(
        _COMMON.model_dump() | _LONGER | {"epochs": 30, "ema": 0.998}  # about the last one and a half epochs
    ),
    # Two and a half hours on two such idle cores.
    "best": Recipe.model_validate(
        _COMMON.model_dump()
        | _LONGER
        | {
            "epochs": 90,
            "warmup": 0.05,
            "ema": 0.999,  # about the last three epochs
            "cutout": 8,  # for long runs; the paper above has 12 for a wider network
        }
    ),
    # Trains a version of `best` further (with --from): a long run overfits, and CutMix is against that.
    "refine": Recipe.model_validate(
        _COMMON.model_dump()
        | _LONGER
        | {
            "epochs": 16,
            "learning_rate": 0.001,
            "warmup": 0.05,
            "low_resolution": 0.0,
            "scale_share": 0.25,
            "cutmix": 0.5,
            "ema": 0.999,
        }
    ),
    # Starts from an exported version; chosen on small data sets of several kinds (benchmarks/results/own-classes.md).
    "finetune": _COMMON.model_copy(
        update={
            "epochs": 8,
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 0.002,
            "weight_decay": 0.0,
            "label_smoothing": 0.0,
            "patience": 4,
            "validation": 0.1,
        }
    ),
}


class Options(BaseModel):
    """The options of a job."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    recipe_name: str
    data: str
    data_name: str | None = None
    data_source: str | None = None
    skip_damaged: bool = False
    name: Name
    models: Path
    runs: Path
    start: Path | None = None
    """The version whose weights the network starts from."""
    resume: str | None = None
    require_gpu: bool = False
    export: bool
    quantize: bool
    promote: Literal["always", "if-better"] = "always"
    folds: int | None = None
    """Folds of cross-validation; None: depends on the number of test images."""
    test_sets: tuple[tuple[str, Path], ...] = ()
    foreign: tuple[tuple[str, Path], ...] = ()
    """Images from other sources: the name for tables, and the folder."""
    notes: tuple[Path, ...] = ()
