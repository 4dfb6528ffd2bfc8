"""Every knob of the service, read from the environment with the prefix `APP_`."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.contract import Precision, RuntimeName

LogFormat = Literal["auto", "json", "text"]

_MIN_KEY_LENGTH = 16
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\sA-Z]+")  # as browsers write it (RFC 6454, 6.2)


class Settings(BaseSettings):
    """Settings of one service process; each description also says how to tune it."""

    model_config = SettingsConfigDict(env_prefix="APP_", env_ignore_empty=True, frozen=True)

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on; `0.0.0.0` inside a container, `::` for IPv6 and IPv4.",
    )
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    probe_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Port for probes and metrics alone, with connections of its own and without API keys; keep it "
        "private. Unset: they are on `APP_PORT` only.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys, separated by commas; every request but probes of health must carry one, unless there are "
        "none.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins, separated by commas, whose pages may call the service from a browser, such as "
        "`https://example.org`; `*` for all.",
    )
    model_dir: Path = Field(
        Path("models"),
        description="Folder with one `<name>/<version>/`, or with the `<version>` folders themselves.",
    )
    model_poll_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="How often that folder is looked at for a version to take or to drop; 0 looks only at start.",
    )
    runtime: RuntimeName = Field(
        "openvino",
        description="What runs the SavedModel: `openvino`, or `tensorflow` (needs the `train` extra; serves on a GPU).",
    )
    precision: Precision = Field(
        "auto",
        description="Arithmetic of the OpenVINO runtime; `auto` takes the fastest that the CPU has natively, `int8` if "
        "the version was quantized and lost at most 0.2 points of accuracy.",
    )
    inference_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads that run the model, each a batch of its own; 0 follows the container's CPU quota.",
    )
    decode_threads: int = Field(
        2, ge=1, le=64, description="Threads that decode images; each can hold one decoded image in memory."
    )
    max_batch_size: int = Field(
        32, ge=1, le=256, description="Most images in a batch; more raises throughput under load, and latency with it."
    )
    max_queue_size: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Most images admitted and not yet answered; above it 429. Images per second times seconds of wait.",
    )
    max_batch_files: int = Field(
        32, ge=1, le=1024, description="Most images in one `/predict/batch` or one `/v2` inference."
    )
    max_upload_bytes: int = Field(
        16 * 2**20, ge=1024, le=2**30, description="Largest request body, whatever it holds; above it 413."
    )
    max_uploads_total_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        le=2**40,
        description="Most bytes of request bodies in memory at once, of all clients; above it 429. Not less than "
        "`APP_MAX_UPLOAD_BYTES`.",
    )
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=2**30,
        description="Largest image by its header, before decoding; above it 413. Half as much for a progressive JPEG, "
        "a quarter for WebP and AVIF, so that none takes more than 4 bytes for each of these pixels.",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=65_536,
        description="Maximum number of open connections; a new one above it replaces the one that has been idle, or "
        "else sending a body, for longest.",
    )
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        le=3600,
        description="How long an idle connection is kept; longer than a load balancer in front keeps it.",
    )
    header_timeout_seconds: float = Field(
        10.0, gt=0, le=3600, description="Longest wait for a request's headers; after it 408."
    )
    upload_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, description="Longest wait for a request's body; after it 408."
    )
    request_timeout_seconds: float = Field(
        10.0, gt=0, le=3600, description="Longest wait for the answer once the body is there; after it 504."
    )
    drain_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="After SIGTERM, how long requests are still served while `/health` says draining; "
        "longer than the load balancer's probe interval.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line logged.")
    log_format: LogFormat = Field(
        "auto", description="`json` is one object a line, `text` is for people; `auto` is `text` on a terminal only."
    )

    @property
    def max_files(self) -> int:
        """Most images in one request: more than the queue holds would never get in together."""
        return min(self.max_batch_files, self.max_queue_size)

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = tuple(part.strip() for part in value.split(",") if part.strip())
        if value and not parts:
            raise ValueError("there is nothing between the commas; leave it empty for none")
        return parts

    @field_validator("cors_origins")
    @classmethod
    def _require_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:  # else no browser ever sends what it is compared with
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"an origin is https://host or https://host:port, in small letters; not {origin!r}")
        return origins

    @field_validator("api_keys")
    @classmethod
    def _require_long_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < _MIN_KEY_LENGTH for key in keys):
            raise ValueError(f"a key has at least {_MIN_KEY_LENGTH} characters (openssl rand -hex 16 makes one)")
        if not all(key.get_secret_value().isascii() and key.get_secret_value().isprintable() for key in keys):
            raise ValueError("a key has printable ASCII characters only: headers are sure to carry no others")
        return keys

    @model_validator(mode="after")
    def _require_room_for_an_upload(self) -> Self:
        if self.max_upload_bytes > self.max_uploads_total_bytes:
            raise ValueError("APP_MAX_UPLOADS_TOTAL_BYTES must have room for one body of APP_MAX_UPLOAD_BYTES")
        return self

    @model_validator(mode="after")
    def _require_possible_precision(self) -> Self:
        if self.runtime == "tensorflow" and self.precision not in {"auto", "f32"}:
            raise ValueError("APP_PRECISION is for the openvino runtime; tensorflow runs the graph as it was exported")
        return self


def describe_faults(error: ValidationError) -> list[str]:
    """Say for each setting that makes no sense which it is and what is wrong with it."""
    faults = []
    for finding in error.errors(include_url=False):
        name = "_".join(("APP", *map(str, finding["loc"]))).upper() if finding["loc"] else "settings"
        faults.append(f"{name}: {finding['msg'].removeprefix('Value error, ')}")
    return faults
