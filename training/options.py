"""The command line's flags: one for each field of `Recipe`, and those that say where things are."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from app.contract import Name
from training.config import OFFICIAL, RECIPES, Recipe
from training.failures import DataError
from training.image_folder import LAYOUTS, find_images
from training.numbering import find_newest
from training.run import NEWEST, find_newest_run, read_job

PROGRAM = "python -m training"
DEFAULT_RECIPE = "fast"
FINETUNE_RECIPE = "finetune"
SCRATCH = "scratch"
START_MODELS = Path("models/minimodel")
"""Where the version is looked for that small image folders start from."""
SMALL_FOLDER = 3000
"""Training images below which starting from a version is the default."""


class Options(BaseModel):
    """What the command line said."""

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
    """Of cross-validation; None: decided by the number of test images."""
    test_sets: tuple[tuple[str, Path], ...] = ()
    foreign: tuple[tuple[str, Path], ...] = ()
    """Pictures from elsewhere: what tables call them, and their folder."""
    notes: tuple[Path, ...] = ()


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2 and `message`."""
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse the command line.

    The recipe, by `--recipe` or by what is trained on, sets the defaults of all other hyperparameters, which `--help`
    shows. With `--resume` all defaults are what the run was started with.

    Raises:
        SystemExit: status 2 and one line for a bad flag or value; status 0 after `--help`.
    """
    earlier, resume = _read_earlier(arguments)
    name, start = _choose_recipe(arguments, earlier, is_resumed=resume is not None)
    recipe = Recipe(**earlier["recipe"]) if "recipe" in earlier else RECIPES[name]

    parser = Parser(
        prog=PROGRAM,
        description="Train MiniModel, measure it on the test set, export it as the next version.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,  # nothing to show of a flag that has no default
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=name,
        help=f"named hyperparameters; the flags below change single ones; {FINETUNE_RECIPE} with --from",
    )
    _add_job_flags(parser)
    add_elsewhere_flags(parser)
    group = parser.add_argument_group(f"hyperparameters (defaults of the recipe {name!r})")
    for field_name, field in Recipe.model_fields.items():
        group.add_argument(f"--{field_name.replace('_', '-')}", **_describe_flag(field, getattr(recipe, field_name)))
    parser.set_defaults(**{key: value for key, value in earlier.items() if key not in {"recipe", "recipe_name"}})

    values = vars(parser.parse_args(arguments))
    hyperparameters = {field: values.pop(field) for field in Recipe.model_fields}
    try:
        recipe = Recipe(**hyperparameters)
    except ValidationError as error:
        parser.error("; ".join(_describe_fault(fault) for fault in error.errors()))
    if name == FINETUNE_RECIPE and start is None:
        parser.error(f"argument --recipe: {name} starts from a version; --from names one (none in {START_MODELS})")
    _require_possible(parser, values)
    return Options(**{**values, "recipe": recipe, "recipe_name": name, "start": start, "resume": resume})


def _read_earlier(arguments: Sequence[str] | None) -> tuple[dict[str, Any], str | None]:
    """Read what the run was started with that is to be resumed, and find that run if it is the newest."""
    first = Parser(prog=PROGRAM, add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    first.add_argument("--resume", nargs="?", const=NEWEST)
    first.add_argument("--recipe")
    first.add_argument("--name", default="minimodel")
    first.add_argument("--runs", type=Path, default=Path("runs"))
    given = vars(first.parse_known_args(arguments)[0])
    resume = given.get("resume")
    if resume == NEWEST and (newest := find_newest_run(given["runs"], given["name"], given.get("recipe"))):
        resume = str(newest)
    earlier = read_job(Path(resume)) if resume not in {None, NEWEST} else {}
    return earlier, resume


def _choose_recipe(
    arguments: Sequence[str] | None, earlier: dict[str, Any], *, is_resumed: bool
) -> tuple[str, Path | None]:
    """Return the recipe's name and the version to start from: as was said, else by how many images there are."""
    first = Parser(prog=PROGRAM, add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    first.add_argument("--recipe", choices=RECIPES)
    first.add_argument("--from", dest="start")
    first.add_argument("--data", default=OFFICIAL)
    given = vars(first.parse_known_args(arguments)[0])
    recipe = given.get("recipe", earlier.get("recipe_name"))
    if "start" in given:
        start = None if given["start"] == SCRATCH else Path(given["start"])
    elif is_resumed:
        start = Path(earlier["start"]) if "start" in earlier else None
    elif recipe == FINETUNE_RECIPE or (recipe is None and _is_small_folder(given["data"])):
        start = find_newest(START_MODELS)
        if start:
            print(f"starting from {start} (--from {SCRATCH} does not)", file=sys.stderr)
    else:
        start = None
    return recipe or (FINETUNE_RECIPE if start else DEFAULT_RECIPE), start


def _is_small_folder(data: str) -> bool:
    """Whether `data` is an image folder of few images."""
    try:
        return data != OFFICIAL and len(find_images(Path(data)).train) < SMALL_FOLDER
    except (DataError, OSError):  # whatever it is, loading it will tell
        return False


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    job = parser.add_argument_group("job")
    job.add_argument(
        "--data",
        default=OFFICIAL,
        help=f"{OFFICIAL}: the official download; or the folder of the unpacked official archive; "
        f"or an image folder with {LAYOUTS.replace('%', '%%')}",
    )
    job.add_argument("--data-name", help="what metadata and card call an image folder (default: the folder's own name)")
    job.add_argument("--data-source", help="where an image folder came from (default: image folder)")
    job.add_argument("--skip-damaged", action="store_true", help="leave out files that can't be read as images")
    job.add_argument("--name", default="minimodel", help="of the model")
    job.add_argument(
        "--models", type=Path, default=Path("models"), help="the version goes to MODELS/NAME/<next number>"
    )
    job.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where checkpoints, history and logs go, a folder a run"
    )
    job.add_argument(
        "--from",
        dest="start",
        metavar="VERSION",
        help=f"start from the weights of an exported version's folder; {SCRATCH}: from random ones (default: the "
        f"newest version in {START_MODELS} for an image folder of fewer than {SMALL_FOLDER:,} images, if there is one)",
    )
    job.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="RUN",
        help="go on after the last finished epoch of RUN, or of the newest run of this model that has one, with the "
        "flags it was started with; a finished run is only measured and exported, once more",
    )
    job.add_argument("--require-gpu", action="store_true", help="refuse to train without a GPU")
    job.add_argument(
        "--export",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure on the test set and export; without, only the validation images judge (to compare recipes)",
    )
    job.add_argument(
        "--quantize",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="export it in 8-bit integers too; the service takes them where they cost no accuracy (extra: quantize)",
    )
    job.add_argument(
        "--promote",
        choices=("always", "if-better"),
        default="always",
        help="if-better: leave a version that is no better than the newest on the same test images in "
        "MODELS/NAME/.candidate-<number>, where the service does not see it",
    )
    job.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validate with N folds, 0: don't (default: 3 when there are fewer than 200 test images)",
    )
    job.add_argument(
        "--notes",
        type=Path,
        action="append",
        metavar="FILE",
        help="Markdown that ends the model card; given several times, one after the other",
    )


def add_elsewhere_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name pictures from elsewhere than the data set."""
    parser.add_argument(
        "--test-set",
        dest="test_sets",
        type=_parse_named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="measure accuracy on the pictures DIR/<class>/* too, and call them NAME; may be given several times",
    )
    parser.add_argument(
        "--foreign",
        type=_parse_named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="measure how well typicality tells the pictures in DIR, which show none of the classes, from the test "
        "images; may be given several times",
    )


def _parse_named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and Path(folder).is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR, DIR being a folder")
    return name, Path(folder)


def _require_possible(parser: Parser, values: dict[str, Any]) -> None:
    """Refuse now what would fail after hours of training."""
    try:
        TypeAdapter(Name).validate_python(values["name"])
    except ValidationError:
        parser.error(
            f"argument --name: {values['name']!r} is no model's name: small letters, digits, '.', '_' and '-', "
            "a letter or digit first, 64 at most"
        )
    for flag in ("data_name", "data_source"):
        if flag in values and values["data"] == OFFICIAL:  # its archive, too, but that is recognised when it is read
            parser.error(f"argument --{flag.replace('_', '-')}: {OFFICIAL} has a name and a source of its own")
    for notes in values.get("notes", ()):
        if not notes.is_file():
            parser.error(f"argument --notes: {str(notes)!r} is no file")
        try:
            notes.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"argument --notes: {str(notes)!r} can't be read: {error}")
    if values.get("folds") is not None and (values["folds"] < 0 or values["folds"] == 1):
        parser.error(f"argument --folds: {values['folds']} is neither 0 nor two or more")
    if values["quantize"] and not values["export"]:
        parser.error("argument --quantize: --no-export leaves nothing to quantize")
    if values["quantize"] and not importlib.util.find_spec("nncf"):
        parser.error("argument --quantize: NNCF is not installed; pip install '.[quantize]'")


def _describe_flag(field: FieldInfo, default: object) -> dict[str, Any]:
    described: dict[str, Any] = {"default": default, "help": (field.description or "").replace("%", "%%")}
    if field.annotation is bool:
        return described | {"action": argparse.BooleanOptionalAction}
    if get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        return described | {"choices": choices, "type": type(choices[0])}
    return described | {"type": field.annotation}


def _describe_fault(fault: Any) -> str:
    flag = "".join(f"argument --{str(part).replace('_', '-')}: " for part in fault["loc"])
    given = f", not {fault['input']!r}" if fault["loc"] else ""
    return f"{flag}{fault['msg'].removeprefix('Value error, ')}{given}"
