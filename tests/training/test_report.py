"""Behaviour of training.report."""

import pytest
from PIL import Image

from app.contract import METADATA_FILE, ModelMetadata
from training.calibration import Calibration
from training.config import Recipe
from training.evaluation import Evaluation
from training.report import Card, format_card, format_elsewhere, format_table


@pytest.fixture(scope="module")
def metadata(version) -> ModelMetadata:
    return ModelMetadata.model_validate_json((version / METADATA_FILE).read_bytes())


@pytest.fixture(scope="module")
def recorded(metadata) -> Evaluation:
    return Evaluation.model_validate(metadata.metrics.model_dump())


def test_a_card_has_its_text_and_legible_plots(version):
    """README and three plots of a readable size."""
    card = version / "card"
    assert {path.name for path in card.iterdir()} == {
        "README.md",
        "curves.png",
        "confusion_matrix.png",
        "reliability.png",
    }
    for plot in card.glob("*.png"):
        with Image.open(plot) as image:
            assert min(image.size) >= 400


def test_a_card_describes_the_training_and_the_results(version):
    """Command, data, recipe, figures and notes."""
    text = (version / "card" / "README.md").read_text()
    assert text.startswith("# shapes 1\n")
    assert "python -m training --data" in text
    assert "- `epochs` = 2" in text
    assert "| accuracy |" in text
    assert text.endswith("## How it came about\n\nBy a test.\n\n## What else was tried\n\nNothing.\n")
    assert "{" not in text


def test_a_card_gives_the_size_that_the_model_sees(metadata, recorded):
    """It limits the detail that the model can tell apart."""
    card = Card("a 1", Recipe(size=64), metadata.training, "a" * 40, metadata.data, [], recorded, Calibration(0, 1))
    assert "seen at 64×64 pixels" in format_card(card)


def test_tables_show_every_figure(recorded):
    """A row for each class, runtime and changed test set, and three for calibration."""
    table = format_table(recorded)
    assert "| runtime | accuracy | negative log-likelihood |" in table
    for name in (*recorded.per_class_accuracy, *recorded.runtimes, *recorded.robustness):
        assert f"| {name} |" in table
    for error in (
        recorded.calibration_error_uncalibrated,
        recorded.calibration_error_before_temperature,
        recorded.calibration_error,
    ):
        assert f"| {100 * error:.2f} % |" in table
    assert "%" not in table.replace(" %", "")


def test_images_from_other_sources_have_tables(recorded):
    """Typicality by runtime, further test sets, foreign images. Nothing that was not measured has a table."""
    text = format_elsewhere(recorded)
    for name, figures in recorded.runtimes.items():
        assert f"| {name} | {100 * figures.atypical:.2f} % |" in text
    again, noise = recorded.test_sets["again"], recorded.foreign["noise"]
    assert f"| again | 24 | {100 * again.accuracy:.1f} % | {100 * again.class_mean:.1f} % |" in text
    assert f"| noise | 3 | {noise.typicality_auroc:.3f} | {100 * noise.typicality_caught:.1f} % | " in text
    nothing = recorded.model_copy(update={"test_sets": {}, "foreign": {}, "runtimes": {}})
    assert format_elsewhere(nothing) == ""
    without = noise.model_copy(update={"typicality_auroc": None, "typicality_caught": None})
    assert "| noise | 3 | – | – | " in format_elsewhere(recorded.model_copy(update={"foreign": {"noise": without}}))


def test_similar_figures_are_not_mixed_up(recorded):
    """Several are often nearly equal in a good model."""
    table = format_table(recorded.model_copy(update={"top2_accuracy": 0.1234, "same_label_enlarged": 0.4321}))
    assert "| right class among the two most probable | 12.34 % |" in table
    assert "| same label when a PNG is enlarged ×8 | 43.21 % |" in table


def test_a_card_says_how_the_run_was_started(metadata, recorded):
    """Recipe, command, commit, hardware and precision; and the exporting commit, if it differs."""
    start = metadata.training.model_copy(update={"commit": "a" * 40})
    data = metadata.data.model_copy(update={"pixel_encoding": "jpeg, jpg"})
    epochs = [{"images_per_second": 0.1} | dict.fromkeys(("loss", "val_loss"), 1.0)] * 3
    recipe = Recipe(**metadata.recipe)
    text = format_card(
        Card("shapes 1", recipe, start, "b" * 40, data, epochs, recorded, Calibration(0.13, 1.3), notes="")
    )
    assert f"    {start.command}\n" in text
    # 36 images are three full batches of 16: three epochs of 48 images at 0.1 images per second
    assert f"3 epochs, 24 minutes of training steps on {start.hardware}, in {start.precision}." in text
    assert f"at commit {'a' * 40}; measured and exported by commit {'b' * 40}." in " ".join(text.split())
    assert f"The recipe is `{start.recipe}`" in text
    assert "pixels stored as JPEG: " in text
    assert "That encoding is lossy" in text
    same = format_card(
        Card("shapes 1", recipe, start, "a" * 40, data, epochs[:1], recorded, Calibration(0, 1.3), notes="")
    )
    assert "exported by" not in same
    assert "1 epoch, " in same


def test_a_card_describes_the_calibration(metadata, recorded):
    """The share of smoothing, if there is one, and the temperature."""
    parts = ("shapes 1", Recipe(), metadata.training, "a" * 40, metadata.data, [], recorded)
    smoothed, plain = (format_card(Card(*parts, Calibration(share, 1.3), notes="")) for share in (0.13, 0))
    assert "the network learned, 0.130, then divides the logits by one temperature, 1.30," in smoothed
    assert "The graph divides the logits by one temperature, 1.30, fitted on the validation images." in plain
    assert "smoothed for training" not in plain


def test_mistakes_are_in_the_run_not_in_the_version(job, version):
    """They show images of the data, which the version must not contain."""
    (mistakes,) = job.glob("runs/*/mistakes.png")
    assert mistakes.stat().st_size > 0
    assert not list(version.rglob("mistakes*"))


def test_a_card_names_the_start_and_the_exported_epoch(metadata, recorded):
    """And has remarks on the data, and what the calibration was fitted on."""
    start = metadata.training.model_copy(update={"start": "minimodel 3"})
    epochs = [{"images_per_second": 0.1, "loss": 1.0, "val_loss": 1.0}] * 3
    parts = (
        "shapes 1",
        Recipe(**metadata.recipe),
        start,
        "a" * 40,
        metadata.data,
        epochs,
        recorded,
        Calibration(0, 1.3),
    )
    text = format_card(
        Card(*parts, 2, "the answers of cross-validation", ("6 of 12 test images are also training images.",))
    )
    assert "It started from the weights of minimodel 3. The recipe is" in text
    assert "3 epochs (exported: epoch 2, with the lowest validation loss), " in text
    assert "\n\n6 of 12 test images are also training images.\n\n## Training" in text
    assert "1.30, fitted on the answers of cross-validation." in text
    last = format_card(Card(*parts, 3))
    assert "exported: epoch" not in last
    assert "fitted on the validation images." in last


def test_a_table_without_label_smoothing_has_no_row_for_it(recorded):
    """Calibration errors that differ only by rounding are the same figure."""
    error = recorded.calibration_error_uncalibrated
    table = format_table(recorded.model_copy(update={"calibration_error_before_temperature": error + 1e-9}))
    assert "without label smoothing" not in table


def test_classes_have_their_accuracy_and_counts(recorded):
    """For few images, a percentage says little."""
    name, accuracy = next(iter(recorded.per_class_accuracy.items()))
    right, images = recorded.confusion[0][0], sum(recorded.confusion[0])
    assert f"| {name} | {100 * accuracy:.1f} % | {right} of {images} |" in format_table(recorded)
