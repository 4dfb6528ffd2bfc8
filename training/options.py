"""Parses the command line: a flag for each field of `Recipe`, and those for files, devices and the export."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from app.contract import Name
from training.config import OFFICIAL, RECIPES, Options, Recipe
from training.failures import DataError
from training.image_folder import LAYOUTS, find_images
from training.numbering import find_newest
from training.run import NEWEST, find_newest_run, read_job

PROGRAM = "python -m training"
DEFAULT_RECIPE = "fast"
FINETUNE_RECIPE = "finetune"
SCRATCH = "scratch"
START_MODELS = Path("models/minimodel")
"""Small image folders start from the newest version here."""
SMALL_FOLDER = 3000
"""With fewer training images, the default is to start from a version."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong flag in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2 and `message`."""
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse the command line.

    The recipe sets the defaults of all hyperparameters, which `--help` shows. With `--resume` all defaults are the
    options that the run was started with.

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
        argument_default=argparse.SUPPRESS,  # so that help shows no default for flags without one
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=name,
        help=f"named set of hyperparameters, which the flags below can change; {FINETUNE_RECIPE} is for --from",
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
    if name == FINETUNE_RECIPE and start is None and resume is None and values.get("start") != SCRATCH:
        parser.error(f"argument --recipe: {name} starts from a version, and {START_MODELS} contains none; set --from")
    _require_possible(parser, values)
    return Options(**{**values, "recipe": recipe, "recipe_name": name, "start": start, "resume": resume})


def _read_earlier(arguments: Sequence[str] | None) -> tuple[dict[str, Any], str | None]:
    """Return the options of the run to resume, and its path: the newest run if `--resume` has no value."""
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
    """Return the recipe's name and the version to start from, from the flags or by the number of images."""
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
            print(f"starting from {start}; use --from {SCRATCH} for random weights", file=sys.stderr)
        elif recipe is None:
            print(f"starting from random weights: no version in {START_MODELS}; --from names one", file=sys.stderr)
    else:
        start = None
    return recipe or (FINETUNE_RECIPE if start else DEFAULT_RECIPE), start


def _is_small_folder(data: str) -> bool:
    """Whether `data` is an image folder with few images."""
    try:
        return data != OFFICIAL and len(find_images(Path(data)).train) < SMALL_FOLDER
    except (DataError, OSError):  # loading it will report the error
        return False


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    job = parser.add_argument_group("job")
    job.add_argument(
        "--data",
        default=OFFICIAL,
        help=f"{OFFICIAL}: the official download; or the folder of the unpacked official archive; "
        f"or an image folder with {LAYOUTS.replace('%', '%%')}",
    )
    job.add_argument("--data-name", help="name of an image folder in metadata and card (default: the folder's name)")
    job.add_argument("--data-source", help="where an image folder came from (default: image folder)")
    job.add_argument("--skip-damaged", action="store_true", help="leave out files that can't be read as images")
    job.add_argument("--name", default="minimodel", help="name of the model")
    job.add_argument(
        "--models", type=Path, default=Path("models"), help="the version goes to MODELS/NAME/<next number>"
    )
    job.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="folder for checkpoints, history and logs, with a subfolder for each run",
    )
    job.add_argument(
        "--from",
        dest="start",
        metavar="VERSION",
        help=f"start from the weights of the exported version in this folder; {SCRATCH}: from random weights (default: "
        f"the newest version in {START_MODELS}, if any, for an image folder of fewer than {SMALL_FOLDER:,} training "
        "images, unless --recipe names another recipe)",
    )
    job.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="RUN",
        help="continue RUN after its last finished epoch, with the flags it was started with; without RUN, the newest "
        "run of this model with a finished epoch; a finished run is only measured and exported again",
    )
    job.add_argument("--require-gpu", action="store_true", help="refuse to train without a GPU")
    job.add_argument(
        "--export",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure on the test set and export; --no-export is for comparing recipes by validation accuracy",
    )
    job.add_argument(
        "--quantize",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also export in int8, which the service uses if it loses no accuracy (extra: quantize)",
    )
    job.add_argument(
        "--promote",
        choices=("always", "if-better"),
        default="always",
        help="if-better: export a version that is no better than the newest on the same test images to "
        "MODELS/NAME/.candidate-<number>, which the service ignores",
    )
    job.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validate with N folds; 0: no cross-validation (default: 3 with fewer than 200 test images, else 0)",
    )
    job.add_argument(
        "--notes",
        type=Path,
        action="append",
        metavar="FILE",
        help="Markdown to append to the model card; may be given several times",
    )


def add_elsewhere_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for images from other sources than the data set."""
    parser.add_argument(
        "--test-set",
        dest="test_sets",
        type=_parse_named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="also measure accuracy on the images DIR/<class>/*, called NAME; may be given several times",
    )
    parser.add_argument(
        "--foreign",
        type=_parse_named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="measure how well typicality separates the images in DIR, which show none of the classes, from the test "
        "images; may be given several times",
    )


def _parse_named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and Path(folder).is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR, where DIR is a folder")
    return name, Path(folder)


def _require_possible(parser: Parser, values: dict[str, Any]) -> None:
    """Reject options that would fail after hours of training."""
    try:
        TypeAdapter(Name).validate_python(values["name"])
    except ValidationError:
        parser.error(
            f"argument --name: {values['name']!r} is not a valid name: use at most 64 lower-case letters, digits, '.', "
            "'_' and '-', and start with a letter or digit"
        )
    for flag in ("data_name", "data_source"):
        if flag in values and values["data"] == OFFICIAL:  # loading rejects them for the official archive
            parser.error(f"argument --{flag.replace('_', '-')}: {OFFICIAL} has a name and a source of its own")
    for notes in values.get("notes", ()):
        if not notes.is_file():
            parser.error(f"argument --notes: {str(notes)!r} is not a file")
        try:
            notes.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"argument --notes: {str(notes)!r} can't be read: {error}")
    if values.get("folds") is not None and (values["folds"] < 0 or values["folds"] == 1):
        parser.error(f"argument --folds: {values['folds']} is neither 0 nor at least 2")
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
