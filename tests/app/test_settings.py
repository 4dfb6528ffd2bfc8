"""Behaviour of app.settings, and of the table of settings in docs/reference.md."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le
from pydantic import ValidationError

from app.settings import Settings, describe_faults

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def write_row(name: str) -> str:
    field = Settings.model_fields[name]
    bounds = {type(bound): bound for bound in field.metadata}
    parts = []
    if Ge in bounds:
        parts.append(f"from {bounds[Ge].ge:,}")
    if Gt in bounds:
        parts.append(f"above {bounds[Gt].gt:,}")
    if Le in bounds:
        parts.append(f"to {bounds[Le].le:,}")
    if get_origin(field.annotation) is Literal:
        parts = [", ".join(f"`{value}`" for value in get_args(field.annotation))]
    default = f"`{field.default}`" if field.default not in ((), None, "") else ""
    return f"| `APP_{name.upper()}` | {default} | {field.description} | {' '.join(parts)} |"


def test_the_reference_lists_every_setting():
    """With its default, description and bounds or values, in order, and nothing else."""
    [table] = re.findall(
        r"^\|.*\|\n\|---\|---\|---\|---\|\n((?:\| `APP_.*\n)+)", REFERENCE.read_text("utf-8"), re.MULTILINE
    )
    assert table.splitlines() == [write_row(name) for name in Settings.model_fields]


def test_the_old_name_of_a_setting_still_works(monkeypatch):
    """APP_DECODERS was APP_DECODE_THREADS. The new name takes precedence, and errors name it."""
    monkeypatch.setenv("APP_DECODE_THREADS", "3")
    assert Settings().decoders == 3
    monkeypatch.setenv("APP_DECODERS", "4")
    assert Settings().decoders == 4
    assert Settings(decoders=5).decoders == 5
    monkeypatch.setenv("APP_DECODERS", "0")
    with pytest.raises(ValidationError) as found:
        Settings()
    assert describe_faults(found.value) == ["APP_DECODERS: Input should be greater than or equal to 1"]


def test_settings_come_from_the_environment(monkeypatch):
    """With the prefix APP_."""
    monkeypatch.setenv("APP_PORT", "9000")
    monkeypatch.setenv("APP_MODEL_DIR", "/models")
    settings = Settings()
    assert (settings.port, settings.model_dir) == (9000, Path("/models"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "eighty"), ("port", "65536"), ("runtime", "torch"), ("max_batch_size", "0"), ("max_queue_size", "0"),
        ("request_timeout_seconds", "0"), ("drain_seconds", "-1"), ("precision", "f8"), ("log_level", "loud"),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_refused(monkeypatch, name, value):
    """The service does not start with an invalid setting."""
    monkeypatch.setenv(f"APP_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_a_total_limit_below_that_of_one_upload_is_refused():
    """Larger uploads would be told to retry forever."""
    with pytest.raises(ValidationError, match="APP_MAX_UPLOADS_TOTAL_BYTES"):
        Settings(max_upload_bytes=4096, max_uploads_total_bytes=2048)


@pytest.mark.parametrize("value", [",", ", ,", " "])
def test_invalid_keys_are_refused(value, monkeypatch):
    """A badly generated secret would leave the service open."""
    monkeypatch.setenv("APP_API_KEYS", value)
    with pytest.raises(ValidationError, match="no values between the commas"):
        Settings()


def test_the_same_port_for_requests_and_probes_is_refused():
    """The system would report it only when the second socket listens."""
    with pytest.raises(ValidationError, match="APP_PROBE_PORT must be another port"):
        Settings(port=8000, probe_port=8000)
    assert Settings(port=0, probe_port=0).probe_port == 0


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_an_empty_variable_means_the_default(monkeypatch, name):
    """So a compose file can pass on a variable that is not set."""
    monkeypatch.setenv(f"APP_{name.upper()}", "")
    assert getattr(Settings(), name) == Settings.model_fields[name].default


@pytest.mark.parametrize("key", ["ключ" * 8, "tab\t" * 8])
def test_a_key_that_no_header_can_contain_is_refused(key):
    """It could never be sent as a bearer token."""
    with pytest.raises(ValidationError, match="printable ASCII"):
        Settings(api_keys=key)


def test_a_precision_for_tensorflow_is_refused():
    """It would be ignored."""
    with pytest.raises(ValidationError, match="APP_PRECISION"):
        Settings(runtime="tensorflow", precision="bf16")


@pytest.mark.parametrize("value", ["example.org", "https://example.org/", "https://Example.org", "https://a.org/b"])
def test_an_origin_that_no_browser_sends_is_refused(value):
    """It would never match, and nothing would say why."""
    with pytest.raises(ValidationError, match="an origin is https://host"):
        Settings(cors_origins=value)


def test_origins_as_browsers_send_them_are_accepted():
    """With a port, of a local page, or `*`."""
    origins = ("https://example.org", "http://localhost:3000", "http://[::1]:80", "*")
    assert Settings(cors_origins=",".join(origins)).cors_origins == origins
