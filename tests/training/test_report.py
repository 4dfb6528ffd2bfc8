from PIL import Image


def test_card_has_its_text_and_legible_plots(version):
    """README and three plots, each large enough to read."""
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


def test_card_tells_how_to_train_it_again_and_what_it_is_worth(version):
    """Command, data, recipe, figures and the notes that were given."""
    text = (version / "card" / "README.md").read_text()
    assert text.startswith("# shapes 1\n")
    assert "python -m training --data" in text
    assert "- `epochs` = 2" in text
    assert "| accuracy |" in text
    assert text.endswith("## What else was tried\n\nNothing.\n")
    assert "{" not in text


def test_mistakes_go_to_the_run_not_into_the_artifact(job, version):
    """They show the data's pixels, which the artifact may not hold."""
    (mistakes,) = job.glob("runs/*/mistakes.png")
    assert mistakes.stat().st_size > 0
    assert not list(version.rglob("mistakes*"))
