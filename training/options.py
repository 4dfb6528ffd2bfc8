"""The command line's flags: one for each field of `Recipe`, and those that say where things are."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from app.contract import Name
from training.config import OFFICIAL, RECIPES, Recipe
from training.folder import LAYOUTS

PROGRAM = "python -m training"
NEWEST = "newest"
DEFAULT_RECIPE = "fast"


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
    resume: str | None = None
    require_gpu: bool = False
    export: bool
    quantize: bool
    notes: tuple[Path, ...] = ()


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2 and `message`."""
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse the command line. `--recipe` sets the defaults of all other hyperparameters, which `--help` shows.

    Raises:
        SystemExit: status 2 and one line for a bad flag or value; status 0 after `--help`.
    """
    first = Parser(prog=PROGRAM, add_help=False)
    first.add_argument("--recipe", choices=RECIPES, default=DEFAULT_RECIPE)
    name = first.parse_known_args(arguments)[0].recipe

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
        default=DEFAULT_RECIPE,
        help="named hyperparameters; the flags below change single ones",
    )
    _add_job_flags(parser)
    group = parser.add_argument_group(f"hyperparameters (defaults of the recipe {name!r})")
    for field_name, field in Recipe.model_fields.items():
        default = getattr(RECIPES[name], field_name)
        group.add_argument(f"--{field_name.replace('_', '-')}", **_describe_flag(field, default))

    values = vars(parser.parse_args(arguments))
    hyperparameters = {field: values.pop(field) for field in Recipe.model_fields}
    try:
        recipe = Recipe(**hyperparameters)
    except ValidationError as error:
        parser.error("; ".join(_describe_fault(fault) for fault in error.errors()))
    _require_possible(parser, values)
    return Options(**{**values, "recipe": recipe, "recipe_name": name})


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
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="RUN",
        help="go on after the last finished epoch of RUN, or of the newest run of this model and recipe that has one; "
        "a finished run is only measured and exported, once more",
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
        "--notes",
        type=Path,
        action="append",
        metavar="FILE",
        help="Markdown that ends the model card; given several times, one after the other",
    )


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
    if values["quantize"] and not values["export"]:
        parser.error("argument --quantize: --no-export leaves nothing to quantize")
    if values["quantize"] and not importlib.util.find_spec("nncf"):
        parser.error("argument --quantize: NNCF is not installed; pip install '.[quantize]'")


def _describe_flag(field: FieldInfo, default: object) -> dict[str, Any]:
    described: dict[str, Any] = {"default": default, "help": (field.description or "").replace("%", "%%")}
    if field.annotation is bool:
        return described | {"action": argparse.BooleanOptionalAction}
    if get_origin(field.annotation) is Literal:
        return described | {"choices": get_args(field.annotation)}
    return described | {"type": field.annotation}


def _describe_fault(fault: Any) -> str:
    flag = "".join(f"argument --{str(part).replace('_', '-')}: " for part in fault["loc"])
    given = f", not {fault['input']!r}" if fault["loc"] else ""
    return f"{flag}{fault['msg'].removeprefix('Value error, ')}{given}"
