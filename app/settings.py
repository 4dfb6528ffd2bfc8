"""The service's settings, read from environment variables with the prefix `APP_`."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.contract import Precision, RuntimeName

LogFormat = Literal["auto", "json", "text"]

DECODERS_BEFORE = "APP_DECODE_THREADS"
"""Old name of `APP_DECODERS`, still accepted."""

_MIN_KEY_LENGTH = 16
_LOOPBACK_HOSTS = ("localhost", "*.localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\sA-Z]+")  # as browsers send it (RFC 6454, section 6.2)


class Settings(BaseSettings):
    """Settings of one service process. The descriptions also say how to tune them."""

    model_config = SettingsConfigDict(env_prefix="APP_", env_ignore_empty=True, frozen=True, populate_by_name=True)

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on; `0.0.0.0` inside a container, `::` for IPv6 and IPv4.",
    )
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 picks a free one.")
    probe_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Port for probes and metrics alone, with connections of its own and without API keys; keep it "
        "private. Unset: they are on `APP_PORT` only.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="API keys, separated by commas. If set, every request except the health probes needs one.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins, separated by commas, whose pages may call the service from a browser (CORS), such as "
        "`https://example.org`; `*` allows all.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names, separated by commas, that a request's `Host` may have, such as `example.org` or "
        "`*.example.org`; `*` for any. Unless set: loopback's names if `APP_HOST` is loopback, else any.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Addresses and networks, separated by commas, of proxies whose `X-Forwarded-For`, `-Proto` and "
        "`-Prefix` the service trusts, such as `10.0.0.0/8`; `*` for all. It always trusts loopback.",
    )
    root_path: str = Field(
        "",
        description="Prefix of the paths under which a proxy serves the service, such as `/classifier`; the proxy may "
        "strip it or not.",
    )
    model_dir: Path = Field(
        Path("models"),
        description="Folder that contains `<name>/<version>/` of one model, the `<version>` folders themselves, or the "
        "files of one version.",
    )
    model_version: int | None = Field(
        None, ge=1, description="Pins the version that serves; unset, the newest one serves."
    )
    model_poll_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Seconds between polls of `APP_MODEL_DIR` for new and removed versions; 0 reads it only at the "
        "start.",
    )
    runtime: RuntimeName = Field(
        "openvino",
        description="Runs the SavedModel: `openvino`, or `tensorflow` (needs the `train` extra; can use a GPU).",
    )
    precision: Precision = Field(
        "auto",
        description="Precision of the OpenVINO runtime. `auto` is the fastest that the CPU supports natively, "
        "including `int8` if the version has it and lost at most 0.2 points of accuracy.",
    )
    max_model_memory_bytes: int = Field(
        512 * 2**20,
        ge=2**26,
        le=2**40,
        description="Maximum memory for a version with one inference thread, on top of the runtime's own; a version "
        "that needs more is refused. Raise it for models with large inputs.",
    )
    inference_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads that run the model, each with its own batch; 0 is the container's CPU quota.",
    )
    decoders: int = Field(
        2,
        ge=1,
        le=64,
        validation_alias=AliasChoices("APP_DECODERS", DECODERS_BEFORE),
        description="Processes that decode images. Each may take 4 bytes per pixel of `APP_MAX_IMAGE_PIXELS`, plus "
        "`APP_MAX_UPLOAD_BYTES`, plus 24 MiB: 232 MiB by default.",
    )
    decode_timeout_seconds: float = Field(
        3.0,
        gt=0,
        le=3600,
        description="Maximum time to decode one image; after that, 413, and the process is replaced.",
    )
    max_batch_size: int = Field(
        32,
        ge=1,
        le=256,
        description="Maximum images in a batch. A larger batch raises throughput and latency under load.",
    )
    max_queue_size: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Maximum images accepted and not yet answered; further ones get 429. Size it as throughput × "
        "the longest acceptable wait.",
    )
    max_batch_files: int = Field(
        32, ge=1, le=1024, description="Maximum images in one request to `/predict/batch`, `/v1` or `/v2`."
    )
    max_upload_bytes: int = Field(
        16 * 2**20, ge=1024, le=2**30, description="Maximum size of a request body; larger ones get 413."
    )
    max_uploads_total_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        le=2**40,
        description="Maximum memory for the request bodies of all clients together; further ones get 429. At least "
        "`APP_MAX_UPLOAD_BYTES`.",
    )
    max_image_pixels: int = Field(
        8192 * 6144,
        ge=1,
        le=2**30,
        description="Maximum pixels in an image's header; larger images get 413. Progressive JPEG, WebP, AVIF and "
        "HEIC need more memory per pixel, so their limit is lower: about a quarter for WebP and AVIF.",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=65_536,
        description="Maximum number of open connections. A new one above it evicts the connection that has been idle "
        "longest or, if none is idle, the one that has been sending a body longest.",
    )
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        le=3600,
        description="Idle time after which a connection is closed; set it longer than the load balancer's.",
    )
    header_timeout_seconds: float = Field(
        10.0, gt=0, le=3600, description="Longest wait for the request's headers; after that, 408."
    )
    upload_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, description="Longest wait for the request's body; after that, 408."
    )
    request_timeout_seconds: float = Field(
        10.0, gt=0, le=3600, description="Longest time from the end of the body to the answer; after that, 504."
    )
    drain_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="After SIGTERM, how long the service goes on serving while `/health` says `draining`; set it "
        "longer than the load balancer's probe interval.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: LogFormat = Field(
        "auto",
        description="`json` is one object per line, `text` is for people; `auto` is `text` on a terminal only.",
    )

    @property
    def max_files(self) -> int:
        """Maximum images in one request; a request with more than the queue holds could never be accepted."""
        return min(self.max_batch_files, self.max_queue_size)

    @property
    def served_hosts(self) -> tuple[str, ...]:
        """Names that a request's `Host` may have; `*` is any."""
        if self.allowed_hosts:
            return self.allowed_hosts
        return (*_LOOPBACK_HOSTS, self.host.strip("[]")) if _is_loopback(self.host) else ("*",)

    @field_validator("api_keys", "cors_origins", "allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = tuple(part.strip() for part in value.split(",") if part.strip())
        if value and not parts:
            raise ValueError("no values between the commas; leave the variable empty for none")
        return parts

    @field_validator("cors_origins")
    @classmethod
    def _require_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:  # no browser sends an origin in another form
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"an origin is https://host or https://host:port in lower case, not {origin!r}")
        return origins

    @field_validator("allowed_hosts")
    @classmethod
    def _require_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower().strip("[]") for host in hosts)
        for host in hosts:
            if not (_HOST.fullmatch(host) or _is_address(host)):
                raise ValueError(f"a host is example.org, *.example.org or an address, without a port; not {host!r}")
        return hosts

    @field_validator("trusted_proxies")
    @classmethod
    def _require_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            if network != "*":
                ip_network(network)
        return networks

    @field_validator("root_path")
    @classmethod
    def _require_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and not _PATH.fullmatch(path):
            raise ValueError(f"a path is /one or /one/two, of letters, digits and . _ ~ -; not {path!r}")
        return path

    @field_validator("api_keys")
    @classmethod
    def _require_long_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < _MIN_KEY_LENGTH for key in keys):
            raise ValueError(f"a key needs at least {_MIN_KEY_LENGTH} characters (generate one: openssl rand -hex 16)")
        if not all(key.get_secret_value().isascii() and key.get_secret_value().isprintable() for key in keys):
            raise ValueError("a key can have printable ASCII characters only: headers can't carry others reliably")
        return keys

    @model_validator(mode="after")
    def _require_room_for_an_upload(self) -> Self:
        if self.max_upload_bytes > self.max_uploads_total_bytes:
            raise ValueError("APP_MAX_UPLOADS_TOTAL_BYTES must have room for one body of APP_MAX_UPLOAD_BYTES")
        return self

    @model_validator(mode="after")
    def _require_different_ports(self) -> Self:
        if self.port and self.port == self.probe_port:
            raise ValueError("APP_PROBE_PORT must be another port than APP_PORT")
        return self

    @model_validator(mode="after")
    def _require_possible_precision(self) -> Self:
        if self.runtime == "tensorflow" and self.precision not in {"auto", "f32"}:
            raise ValueError("APP_PRECISION is for the openvino runtime; tensorflow runs the graph as exported")
        return self


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    host = host.strip("[]")
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def describe_faults(error: ValidationError) -> list[str]:
    """Describe each invalid setting in one line: its name and the fault."""
    faults = []
    for finding in error.errors(include_url=False):
        place = "_".join(map(str, finding["loc"])).upper().removeprefix("APP_")  # an alias has the prefix already
        name = f"APP_{place}" if place else "settings"
        faults.append(f"{name}: {finding['msg'].removeprefix('Value error, ')}")
    return faults
