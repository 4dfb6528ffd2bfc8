"""Behaviour of training.options."""

import sys
from pathlib import Path

import pytest

from tests.training.images import draw_split, write_folder
from training.config import RECIPES, Recipe
from training.options import parse_options


def test_the_default_is_the_fast_recipe_on_cifar_10():
    """Without flags."""
    options = parse_options([])
    assert options.recipe == RECIPES["fast"]
    assert options.data == "cifar10"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A small image folder, and a shipped version to start from."""
    write_folder(tmp_path / "photos", draw_split(1, 0), "png")
    (tmp_path / "minimodel" / "3").mkdir(parents=True)
    monkeypatch.setattr("training.options.START_MODELS", tmp_path / "minimodel")
    monkeypatch.setattr("training.options.SMALL_FOLDER", 3000)
    return str(tmp_path / "photos")


def test_a_small_image_folder_starts_from_the_shipped_version(photos, capsys):
    """With the recipe `finetune`, which flags can change, and a message."""
    options = parse_options(["--data", photos, "--epochs", "3"])
    assert (options.recipe_name, options.start.name) == ("finetune", "3")
    assert options.recipe == RECIPES["finetune"].model_copy(update={"epochs": 3})
    assert capsys.readouterr().err == f"starting from {options.start}; use --from scratch for random weights\n"


@pytest.mark.parametrize("flags", [["--from", "scratch"], ["--recipe", "fast"]])
def test_random_weights_can_be_chosen(photos, flags):
    """By a flag, or by naming another recipe."""
    options = parse_options(["--data", photos, *flags])
    assert (options.recipe_name, options.start) == ("fast", None)


def test_random_weights_for_want_of_a_version_are_reported(photos, monkeypatch, capsys):
    """Such as in another working directory: the model would be worse than expected."""
    monkeypatch.setattr("training.options.START_MODELS", Path("nowhere"))
    assert parse_options(["--data", photos]).start is None
    assert capsys.readouterr().err == "starting from random weights: no version in nowhere; --from names one\n"


def test_finetune_may_start_from_random_weights(photos):
    """To see what the start contributes."""
    options = parse_options(["--data", photos, "--recipe", "finetune", "--from", "scratch"])
    assert (options.recipe_name, options.start) == ("finetune", None)


def test_large_folders_and_official_data_start_from_random_weights(photos, monkeypatch):
    """By default."""
    assert parse_options([]).start is None
    monkeypatch.setattr("training.options.SMALL_FOLDER", 3)
    assert parse_options(["--data", photos]).start is None


def test_a_network_can_start_from_any_version(tmp_path):
    """With the recipe `finetune`, unless another one is named."""
    flags = ["--from", str(tmp_path)]
    assert parse_options(flags).recipe_name == "finetune"
    named = parse_options([*flags, "--recipe", "article"])
    assert (named.recipe_name, named.start) == ("article", tmp_path)


def test_a_flag_changes_one_value_of_the_named_recipe():
    """The others stay."""
    options = parse_options(["--recipe", "article", "--epochs", "3", "--no-flip"])
    assert options.recipe == RECIPES["article"].model_copy(update={"epochs": 3, "flip": False})


def test_the_article_recipe_has_the_articles_hyperparameters():
    """Value by value."""
    recipe = RECIPES["article"]
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == ("adam", 0.001, "constant")
    assert (recipe.batch_size, recipe.epochs, recipe.dropout) == (128, 50, 0.25)
    assert (recipe.rotation, recipe.shift, recipe.flip) == (10, 5 / 32, True)
    assert (recipe.label_smoothing, recipe.weight_decay, recipe.normalization) == (0, 0, "position")


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_shows_every_hyperparameter_with_its_default(recipe, capsys):
    """Of the chosen recipe."""
    with pytest.raises(SystemExit) as exit_:
        parse_options(["--recipe", recipe, "--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in Recipe.model_fields:
        after = text.split(f"--{name.replace('_', '-')}", 2)[-1]
        assert f"(default: {getattr(RECIPES[recipe], name)})" in after


def test_help_shows_each_default_once(capsys):
    """And none for flags without a default."""
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "default: None" not in text
    assert all(flag.count("(default: ") <= 1 for flag in text.split(" --"))
    assert "a finished run is only measured and exported" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epoch", "3"], "--epoch"),
        (["--epochs", "0"], "--epochs: Input should be greater than or equal to 1, not 0"),
        (["--epochs", "many"], "--epochs: invalid int value: 'many'"),
        (["--optimizer", "lion"], "invalid choice: 'lion'"),
        (["--recipe", "worst"], "invalid choice: 'worst'"),
        (["--dropout", "1"], "--dropout: Input should be less than 1"),
        (["--learning-rate", "inf"], "--learning-rate: Input should be a finite number, not inf"),
        (["--weight-decay", "nan"], "--weight-decay: Input should be a finite number, not nan"),
        (["--seed", str(2**31)], f"--seed: Input should be less than {2**31}"),
        (["--schedule", "constant"], "--warmup belongs to a cosine schedule"),
        (["--alternating-flip", "--no-flip"], "--alternating-flip changes how --flip mirrors"),
        (["--aspect", "0.2", "--scale", "0"], "--aspect stretches what --scale scales"),
        (["--name", "../x"], "--name"),
        (["--name", "Shapes"], "--name: 'Shapes' is not a valid name"),
        (["--name", "a,b"], "--name: 'a,b' is not a valid name"),
        (["--name", "s" * 65], "is not a valid name"),
        (["--quantize", "--no-export"], "--quantize: --no-export leaves nothing to quantize"),
        (["--data-name", "x"], "--data-name: cifar10 has a name and a source of its own"),
        (["--data", "cifar10", "--data-source", "x"], "--data-source: cifar10 has a name and a source of its own"),
        (["--recipe", "finetune"], "--recipe: finetune starts from a version, and nowhere contains none; set --from"),
        (["--folds", "1"], "--folds: 1 is neither 0 nor at least 2"),
        (["--size", "33"], "--size: invalid choice: 33"),
        (["--notes", "nowhere.md"], "--notes: 'nowhere.md' is not a file"),
    ],
)
def test_a_bad_flag_is_one_line_and_status_2(arguments, words, capsys):
    """Whatever is wrong with it."""
    with pytest.raises(SystemExit) as exit_:
        parse_options(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error


def test_unreadable_notes_are_refused_before_training(tmp_path, capsys):
    """The card is written at the end."""
    notes = tmp_path / "notes.md"
    notes.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(SystemExit) as exit_:
        parse_options(["--notes", str(notes)])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "notes.md' can't be read: 'utf-8' codec can't decode byte 0xe9" in error


def test_quantize_without_nncf_is_refused_before_training(monkeypatch, capsys):
    """The message names the extra to install."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(SystemExit) as exit_:
        parse_options(["--quantize"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "NNCF is not installed; pip install '.[quantize]'" in error


def test_folders_of_other_images_have_names(tmp_path, capsys):
    """For the tables. The flags may be repeated."""
    flags = ("--test-set", f"photographs={tmp_path}", "--foreign", f"a={tmp_path}", "--foreign", f"b={tmp_path}")
    options = parse_options(flags)
    assert options.test_sets == (("photographs", tmp_path),)
    assert options.foreign == (("a", tmp_path), ("b", tmp_path))
    for text in (str(tmp_path), f"={tmp_path}", f"a={tmp_path}/none"):
        with pytest.raises(SystemExit):
            parse_options(["--foreign", text])
        assert "is not NAME=DIR, where DIR is a folder" in capsys.readouterr().err
