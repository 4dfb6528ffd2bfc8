"""The contract between training and serving: the metadata and digests of a version folder.

A version folder (`models/<name>/<version>/`) contains a TensorFlow SavedModel, `metadata.json` (a `ModelMetadata`),
`golden.npz` (images, and the trained model's answers for them), `card/` and, if the model was quantized, `int8/` for
OpenVINO. This module knows neither TensorFlow nor OpenVINO nor HTTP.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PositiveInt, StringConstraints

from app.litter import is_litter

RuntimeName = Literal["openvino", "tensorflow"]
Precision = Literal["auto", "f32", "bf16", "f16", "int8"]
"""Precision to run a version in; `auto` is the fastest that the CPU supports natively."""

METADATA_FILE = "metadata.json"
GOLDEN_FILE = "golden.npz"
CARD_FOLDER = "card"
INT8_FILE = "int8/model.xml"
"""The quantized graph; its weights are in `int8/model.bin`."""
_LISTED = 5  # number of faulty files that an error names

GOLDEN_TOLERANCES = {"f32": 0.002, "f16": 0.01, "bf16": 0.05, "int8": 0.2}
"""Maximum difference between a probability and its golden value, which Keras computed in float32.

Reordered float32 sums differ by about 1e-5 and TensorFloat-32 by 1e-3; bfloat16 keeps 8 bits of each number; int8
differed by up to 0.09. A wrong model differs by far more."""

TYPICALITY_TOLERANCES = {"f32": 0.05, "f16": 0.1, "bf16": 0.1, "int8": 0.5}
"""Maximum difference between a typicality and its golden value.

With 2,500 held-out images, bfloat16 differed by up to 0.02 and int8 by up to 0.48."""


def limit_typicality_difference(precision: str, held_out: int) -> float:
    """Return how far a typicality may be from its golden value, with `held_out` validation images.

    It is a share of them, so an image that moves past another one changes it by a whole step: 0.0004 of 2,500 images,
    0.05 of 20. Two steps are tolerated.
    """
    return max(TYPICALITY_TOLERANCES[precision], 2 / (held_out + 1))


def _require_plain_relative(path: str) -> str:
    """Reject a path that could name a file outside the version folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or str(pure) != path or path == ".":
        raise ValueError(f"{path!r} is not a plain path inside the version folder")
    return path


def _require_distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Reject duplicate class names, which clients could not tell apart."""
    if len(set(names)) < len(names):
        raise ValueError("duplicate class name")
    return names


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_require_plain_relative)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(_Record):
    """Name, element type and shape of the signature's input or output, without the batch dimension."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[PositiveInt, ...] = Field(fail_fast=True)  # Pydantic would keep an error for each bad item


class DataSet(_Record):
    """The data that the model was trained and tested on."""

    name: str
    source: str
    pixel_encoding: str = Field(description="How the pixels were stored before training.")
    train_size: PositiveInt
    validation_size: PositiveInt
    test_size: PositiveInt


class TrainingRun(_Record):
    """How the training run was started. Resuming a run does not change it."""

    recipe: str = Field(description="The named recipe; flags override its values.")
    command: str
    commit: str = Field(description="Commit that started the run; `ModelMetadata.commit` is the one that exported it.")
    hardware: str
    precision: str = Field(description="Keras's dtype policy.")
    start: str | None = Field(
        default=None, description="The version whose weights it started from, such as `flowers 3`; None: from scratch."
    )


class RuntimeMetrics(BaseModel):
    """Results of one runtime. Training writes more fields; these are what serving uses."""

    model_config = ConfigDict(extra="allow", frozen=True)

    accuracy: Probability


class Metrics(BaseModel):
    """Results on the whole test set; accuracies and errors are fractions.

    Training writes more fields. Serving chooses the precision by `runtimes`; the page shows the others if present.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    accuracy: Probability | None = None
    accuracy_interval: tuple[Probability, Probability] | None = None
    calibration_error: Probability | None = None
    runtimes: dict[str, RuntimeMetrics] = Field(
        default={}, description="By runtime and precision, such as `openvino int8`."
    )


class ModelMetadata(_Record):
    """The metadata of one exported version, the only source of class names and the input size."""

    schema_version: Literal[1] = 1
    name: Name
    version: PositiveInt
    class_names: Annotated[tuple[str, ...], Field(min_length=2, fail_fast=True), AfterValidator(_require_distinct)]
    input: TensorSpec
    output: TensorSpec
    typicality: TensorSpec | None = Field(
        default=None,
        description="The signature's second output: the share of held-out images that are no more typical than this "
        "image. None: the version was exported before it existed.",
    )
    parameters: PositiveInt
    recipe: dict[str, Any] = Field(description="Every hyperparameter of the run.")
    training: TrainingRun
    data: DataSet
    metrics: Metrics
    smoothing: float = Field(
        ge=0, lt=1, description="Share of label smoothing that the graph removes from the probabilities."
    )
    temperature: float = Field(
        gt=0, description="Calibration: the graph divides the logits by it after removing label smoothing."
    )
    libraries: dict[str, str]
    commit: str
    created: AwareDatetime
    files: dict[RelativePath, Sha256] = Field(min_length=1, description="SHA-256 of every file except metadata.json.")

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The signature's outputs: the probabilities and, if the version has it, the typicality."""
        return (self.output,) if self.typicality is None else (self.output, self.typicality)


class DigestError(ValueError):
    """A version's files differ from those in its metadata."""


def digest_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` except the metadata, by POSIX path relative to it.

    Files that operating systems leave (app/litter.py) are no part of a version.

    Raises:
        DigestError: the folder contains a symbolic link or another irregular file.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if any(map(is_litter, relative.split("/"))):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DigestError(f"{_list([relative])} is not a regular file")
        if path.is_file() and relative != METADATA_FILE:
            with path.open("rb") as file:
                digests[relative] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def verify_files(folder: Path, metadata: ModelMetadata) -> None:
    """Check that `folder` contains exactly the files that `metadata` names, unchanged.

    Raises:
        DigestError: a file is missing, unexpected, changed or a link.
    """
    found = digest_files(folder)
    if missing := metadata.files.keys() - found.keys():
        raise DigestError(f"missing: {_list(missing)}")
    if unexpected := found.keys() - metadata.files.keys():
        raise DigestError(f"not named in {METADATA_FILE}: {_list(unexpected)}")
    if changed := [path for path, digest in metadata.files.items() if found[path] != digest]:
        raise DigestError(f"digest differs: {_list(changed)}")


def _list(paths: Collection[str]) -> str:
    """List the first few files. Their names are untrusted and go into logs and answers, so they are escaped."""
    named = [path.encode("unicode_escape").decode()[:200] for path in sorted(paths)[:_LISTED]]
    return ", ".join(named) + (f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else "")
