"""The artifact's contract: what training writes beside a SavedModel and serving reads before it trusts it.

A version folder (`models/<name>/<version>/`) holds a TensorFlow SavedModel, `metadata.json` (a `ModelMetadata`),
`golden.npz` (images and the probabilities that the trained model gave for them), `card/` and, if it was quantized,
`int8/`: the same model in 8-bit integers, for OpenVINO. This module knows the metadata and the digests; it knows
neither TensorFlow nor OpenVINO nor the web.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PositiveInt, StringConstraints

from app.litter import is_litter

RuntimeName = Literal["openvino", "tensorflow"]
Precision = Literal["auto", "f32", "bf16", "f16", "int8"]
"""Arithmetic to run a version in; `auto` takes the fastest that the CPU has natively."""

METADATA_FILE = "metadata.json"
GOLDEN_FILE = "golden.npz"
CARD_FOLDER = "card"
INT8_FILE = "int8/model.xml"
"""The quantized graph; its weights are in `model.bin` beside it."""
_LISTED = 5  # of files that are wrong, the first few are named

GOLDEN_TOLERANCES = {"f32": 0.002, "f16": 0.01, "bf16": 0.05, "int8": 0.2}
"""How far a probability may be from the golden one, which Keras computed in float32.

Reordered float32 sums differ by about 1e-5, TensorFloat-32 by 1e-3; bfloat16 keeps 8 bits of each number; int8 was off
by up to 0.09. A wrong model is off by far more."""


def _require_plain_relative(path: str) -> str:
    """Refuse a path that could name a file outside the version folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or str(pure) != path or path == ".":
        raise ValueError(f"{path!r} is not a plain path inside the version folder")
    return path


def _require_distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a name that stands for two classes: nobody could tell them apart in an answer."""
    if len(set(names)) < len(names):
        raise ValueError("a class name is there twice")
    return names


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_require_plain_relative)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(_Record):
    """Name, element type and shape of the signature's input or output; the batch dimension is left out."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[PositiveInt, ...]


class DataSet(_Record):
    """What the model was trained and tested on."""

    name: str
    source: str
    pixel_encoding: str = Field(description="How the pixels were stored before training saw them.")
    train_size: PositiveInt
    validation_size: PositiveInt
    test_size: PositiveInt


class TrainingRun(_Record):
    """How the run that fitted the model was started; a run that was resumed keeps this."""

    recipe: str = Field(description="The named recipe whose values were taken where no flag gave another.")
    command: str
    commit: str = Field(description="Of the code that started the run; that of the metadata exported it.")
    hardware: str
    precision: str = Field(description="Keras's dtype policy.")


class RuntimeMetrics(BaseModel):
    """What one runtime measured. Only what serving decides by is described here; training writes more."""

    model_config = ConfigDict(extra="allow", frozen=True)

    accuracy: Probability


class Metrics(BaseModel):
    """What was measured on the whole test set; shares are fractions.

    As above, training writes more. Serving decides by `runtimes`; the page tells the others of versions that have them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    accuracy: Probability | None = None
    accuracy_interval: tuple[Probability, Probability] | None = None
    calibration_error: Probability | None = None
    runtimes: dict[str, RuntimeMetrics] = Field(
        default={}, description="By runtime and the arithmetic it ran in, such as `openvino int8`."
    )


class ModelMetadata(_Record):
    """All that is known of one exported version. Class names and the input's size come from here and nowhere else."""

    schema_version: Literal[1] = 1
    name: Name
    version: PositiveInt
    class_names: Annotated[tuple[str, ...], AfterValidator(_require_distinct)] = Field(min_length=2)
    input: TensorSpec
    output: TensorSpec
    parameters: PositiveInt
    recipe: dict[str, Any] = Field(description="Every hyperparameter of the run.")
    training: TrainingRun
    data: DataSet
    metrics: Metrics
    smoothing: float = Field(
        ge=0, lt=1, description="The share of each answer that is label smoothing, undone inside the graph."
    )
    temperature: float = Field(
        gt=0, description="Divides the logits inside the graph (calibration), once label smoothing is undone."
    )
    libraries: dict[str, str]
    commit: str
    created: AwareDatetime
    files: dict[RelativePath, Sha256] = Field(min_length=1, description="SHA-256 of every file but metadata.json.")


class DigestError(ValueError):
    """A version's files are not the ones that its metadata names."""


def digest_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` except the metadata, by POSIX path relative to it.

    Files that operating systems leave (app/litter.py) are no part of a version.

    Raises:
        DigestError: something below the folder is a symbolic link or no regular file.
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
    """Check that `folder` holds exactly the files that `metadata` names, unchanged.

    Raises:
        DigestError: a file is missing, unexpected, changed, or is a link.
    """
    found = digest_files(folder)
    if missing := metadata.files.keys() - found.keys():
        raise DigestError(f"missing: {_list(missing)}")
    if unexpected := found.keys() - metadata.files.keys():
        raise DigestError(f"not named in {METADATA_FILE}: {_list(unexpected)}")
    if changed := [path for path, digest in metadata.files.items() if found[path] != digest]:
        raise DigestError(f"digest differs: {_list(changed)}")


def _list(paths: Collection[str]) -> str:
    """Name some files of a version; their names are input too, and go into logs and answers."""
    named = [path.encode("unicode_escape").decode()[:200] for path in sorted(paths)[:_LISTED]]
    return ", ".join(named) + (f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else "")
