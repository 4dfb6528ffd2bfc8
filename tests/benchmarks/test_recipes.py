"""Behaviour of benchmarks.recipes."""

import json

import pytest

from benchmarks import recipes
from tests.training.fitting import shrink_network
from tests.training.images import draw_split
from training.config import RECIPES
from training.run import RECIPE_FILE, START_FILE


@pytest.fixture(scope="module", autouse=True)
def _short_and_small():
    with pytest.MonkeyPatch.context() as patch:
        shrink_network(patch)
        small = {"optimizer": "sgd", "batch_size": 16, "validation": 0.1}
        patch.setattr(recipes, "RECIPES", {"fast": RECIPES["fast"].model_copy(update=small)})
        yield


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Train two changes; returns the folder with runs/ and results/."""
    place = tmp_path_factory.mktemp("recipes")
    assert run(folder, place, "fast", "dropout") == 0
    return place


def run(folder, place, *changes, epochs=1):
    flags = ("--runs", f"{place}/runs", "--results", f"{place}/results", "--epochs", str(epochs))
    return recipes.main([*changes, "--data", str(folder), *flags])


def read_rows(place):
    lines = (place / "results" / "recipes.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")][2:]


def test_the_table_has_a_row_for_each_finished_run(trained):
    """Values, accuracy, minutes, and the machine and precision of that run."""
    start_file = trained / "runs" / "dropout-1-epochs" / START_FILE
    start = json.loads(start_file.read_text(encoding="utf-8"))
    first, second = read_rows(trained)
    assert first[:2] == ["fast", "as it is"]
    assert second[:2] == ["dropout", "`dropout` = 0.25"]
    assert all(figure.endswith(" %") for figure in second[2:5])
    assert float(second[5]) >= 0
    assert second[6] == f"{start['hardware']}, {start['precision']}"


def test_the_command_is_recorded(trained, folder):
    """Completely in the run's folder; in the table without the local path of the data."""
    start = json.loads((trained / "runs" / "fast-1-epochs" / START_FILE).read_text(encoding="utf-8"))
    assert start["command"].startswith(f"python -m benchmarks.recipes fast dropout --data {folder} --runs ")
    table = (trained / "results" / "recipes.md").read_text(encoding="utf-8")
    assert "Printed by\n`python -m benchmarks.recipes fast dropout --data DIR --epochs 1`.\nNot run: hardier, " in table
    splits = recipes.Splits(draw_split(18, seed=0), draw_split(2, seed=0))
    assert "`python -m benchmarks.recipes --epochs 1`" in recipes.draw_results(1, splits, trained / "runs", "cifar10")


def test_a_complete_table_has_no_line_for_missing_runs(trained, folder, monkeypatch):
    """Its header names all changes."""
    monkeypatch.setattr(recipes, "CHANGES", {name: recipes.CHANGES[name] for name in ("fast", "dropout")})
    assert run(folder, trained) == 0
    table = (trained / "results" / "recipes.md").read_text(encoding="utf-8")
    assert "`python -m benchmarks.recipes fast dropout --data DIR --epochs 1`.\n\n" in table


def test_the_header_of_the_committed_table_names_its_rows():
    """In the command that printed it."""
    table = (recipes.RESULTS / "recipes.md").read_text(encoding="utf-8")
    names = [line.split()[1] for line in table.splitlines() if line.startswith("| ")][2:]
    assert names
    assert f"`{recipes.PROGRAM} {' '.join(names)} --data DIR --epochs " in table


def test_the_table_omits_runs_with_other_values_or_data(trained, folder):
    """And each budget has its own runs."""
    splits = recipes.Splits(draw_split(18, seed=0), draw_split(2, seed=0))
    assert "| fast |" not in recipes.draw_results(1, splits, trained / "runs", "cifar10")  # other data
    path = trained / "runs" / "fast-1-epochs" / RECIPE_FILE
    recipe = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(recipe) | {"learning_rate": 0.5}), encoding="utf-8")
    try:
        assert run(folder, trained, "dropout") == 0
        assert [row[0] for row in read_rows(trained)] == ["dropout"]
    finally:
        path.write_text(recipe, encoding="utf-8")
    assert recipes.name_run(trained, "fast", 1) != recipes.name_run(trained, "fast", 2)


def test_a_run_with_another_recipe_is_refused(trained, folder, capsys):
    """In one line, and the run is not continued."""
    path = trained / "runs" / "fast-1-epochs" / RECIPE_FILE
    recipe = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(recipe) | {"learning_rate": 0.5}), encoding="utf-8")
    try:
        assert run(folder, trained, "fast") == 2
    finally:
        path.write_text(recipe, encoding="utf-8")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "by another recipe: learning_rate was 0.5" in error


@pytest.mark.parametrize(
    ("arguments", "words"), [(["fats"], "no such change: fats"), (["--epochs", "0"], "--epochs: 0 is less than 1")]
)
def test_a_bad_flag_is_one_line(arguments, words, capsys):
    """With exit status 2."""
    with pytest.raises(SystemExit) as exit_:
        recipes.main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error


def test_missing_data_is_one_line(tmp_path, capsys):
    """With exit status 2."""
    assert run(tmp_path / "none", tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
