"""Behaviour of training.promote, with a version that consists of metadata and digests only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.contract import METADATA_FILE, ModelMetadata, verify_files
from tests.app.fakes import make_metadata, seal
from training.failures import ExportError
from training.promote import find_candidate, main, next_version, promote


@pytest.fixture
def candidate(tmp_path) -> Path:
    """A candidate beside version 3. Its metadata say version 4."""
    model = tmp_path / "models" / "tiny"
    (model / "3").mkdir(parents=True)
    folder = model / "4"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    seal(folder)
    return folder.rename(model / ".candidate-4")


@pytest.mark.parametrize("taken", [3, 4, 9])
def test_a_candidate_becomes_the_next_version(candidate, taken):
    """Its metadata get that number. Nothing else changes, and nothing is left behind."""
    model = candidate.parent
    (model / str(taken)).mkdir(exist_ok=True)
    before = json.loads((candidate / METADATA_FILE).read_text())
    folder = promote(candidate)
    assert folder == model / str(taken + 1)
    metadata = json.loads((folder / METADATA_FILE).read_text())
    assert metadata == before | {"version": taken + 1}
    verify_files(folder, ModelMetadata.model_validate(metadata))
    assert {path.name for path in model.iterdir()} == {"3", str(taken), folder.name}


def test_a_damaged_candidate_stays_where_it_is(candidate):
    """A service would refuse it."""
    (candidate / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(ExportError, match=r"is damaged: digest differs: saved_model\.pb"):
        promote(candidate)
    (candidate / METADATA_FILE).write_text("{}")
    with pytest.raises(ExportError, match="is damaged"):
        promote(candidate)
    assert candidate.is_dir()


def test_the_only_candidate_is_found(candidate, monkeypatch):
    """In its model's folder, in the folder of models, and by its own path."""
    models = candidate.parents[1]
    assert find_candidate(models) == find_candidate(candidate.parent) == find_candidate(candidate) == candidate
    monkeypatch.chdir(candidate)
    assert find_candidate(Path()) == candidate


def test_one_of_several_candidates_must_be_named(candidate):
    """The message lists them. A folder without candidates is refused too."""
    (candidate.parent / ".candidate-5").mkdir()
    with pytest.raises(ExportError, match=r"several candidates; name one of them: .*\.candidate-4, .*\.candidate-5"):
        find_candidate(candidate.parent)
    for folder in (candidate.parent / "3", candidate.parent / ".candidate-6"):
        with pytest.raises(ExportError, match="contains no candidate"):
            find_candidate(folder)


def test_the_command_prints_the_new_version(candidate):
    """Without importing TensorFlow, so it takes no seconds."""
    code = "import sys; from training.promote import main; main(sys.argv[1:]); assert 'tensorflow' not in sys.modules"
    command = [sys.executable, "-c", code, str(candidate)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout
    assert printed == f"{candidate.parent}/4\n"


def test_an_error_is_one_line(candidate, capsys):
    """With exit status 2."""
    assert main([str(candidate.parent / "3")]) == 2
    assert capsys.readouterr().err == f"python -m training.promote: {candidate.parent}/3 contains no candidate\n"


def test_the_next_version_is_one_more_than_the_highest(tmp_path):
    """Gaps are skipped; only numbers count."""
    assert next_version(tmp_path / "none") == 1
    for name in ("1", "7", "latest", ".writing-x", ".candidate-9"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 8


def test_the_metadata_are_indented(candidate):
    """As by the export, for people and for `git diff`."""
    assert (promote(candidate) / METADATA_FILE).read_text() == make_metadata(
        4, json.loads((candidate.parent / "4" / METADATA_FILE).read_text())["files"]
    ).model_dump_json(indent=2) + "\n"
