"""The services to compare: this one, and what a user would build instead (`benchmarks.peers`)."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from app.contract import Precision

Body = Literal["form", "raw", "v2"]  # multipart, the image itself, or the JSON of the Open Inference Protocol
# MLServer's own environment, in the one of the others. ../Makefile makes it.
MLSERVER = Path(sys.prefix, "mlserver")


class LeftOutError(Exception):
    """A service can't be measured here; the message gives the reason."""


@dataclass(frozen=True)
class Service:
    """How to start a service and send requests to it."""

    name: str
    title: str
    precision: Precision
    module: tuple[str, ...]  # the arguments of python -m
    environment: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"
    bodies: tuple[Body, ...] = ("form",)
    ours: bool = False
    busy_while_idle: bool = False  # uses much of a core without requests
    python: str = sys.executable

    @property
    def command(self) -> list[str]:
        """The command that starts it."""
        return [self.python, "-m", *self.module]

    def listen(self, port: int) -> dict[str, str]:
        """Return the environment variables that make it listen on `port` of the loopback interface."""
        address = {
            "PORT": str(port),
            "APP_PORT": str(port),
            "MOSEC_PORT": str(port),
            "MOSEC_ADDRESS": "127.0.0.1",
            "BENTOML_PORT": str(port),
            "BENTOML_HOST": "127.0.0.1",
        }
        return address | self.environment


def list_services(precision: Precision) -> list[Service]:
    """Return all services. Those with OpenVINO run in `precision` (f32 or bf16), and some also in int8.

    Those with TensorFlow run the exported graph in f32.
    """
    return [
        _ours("minimodel", precision),
        _ours("minimodel-int8", "int8"),
        _by_openvino("prototype", "minimal FastAPI prototype", "prototype", precision),
        _by_openvino("prototype-int8", "minimal FastAPI prototype", "prototype", "int8"),
        _mosec("mosec", precision),
        _mosec("mosec-int8", "int8"),
        _ray_serve("ray-serve", precision),
        _ray_serve("ray-serve-int8", "int8"),
        _mlserver("mlserver", precision),
        _mlserver("mlserver-int8", "int8"),
        _by_openvino("litserve-openvino", "LitServe, OpenVINO", "lit", precision, busy_while_idle=True),
        _by_tensorflow("litserve-tensorflow", "LitServe, TensorFlow", "benchmarks.peers.lit", busy_while_idle=True),
        _by_tensorflow("bentoml", "BentoML, TensorFlow", "bentoml", "serve", "benchmarks.peers.bento:Classify"),
        _by_tensorflow("threads", "FastAPI, TensorFlow's signature in threads", "benchmarks.peers.threads"),
        _by_tensorflow("predict", "FastAPI, Keras's `model.predict`", "benchmarks.peers.keras_predict"),
    ]


def _ours(name: str, precision: Precision) -> Service:
    environment = {
        "APP_PRECISION": precision,
        "APP_MODEL_DIR": "models",
        "APP_MODEL_POLL_SECONDS": "0",
        "APP_DRAIN_SECONDS": "0",
        "APP_LOG_LEVEL": "warning",  # no access log, like the others
    }
    return Service(name, "**this service**", precision, ("app",), environment, bodies=("form", "raw"), ours=True)


def _by_openvino(name: str, title: str, module: str, precision: Precision, *, busy_while_idle: bool = False) -> Service:
    environment = {"PEER_RUNTIME": "openvino", "PEER_PRECISION": precision}
    command = (f"benchmarks.peers.{module}",)
    return Service(name, title, precision, command, environment, busy_while_idle=busy_while_idle)


def _mosec(name: str, precision: Precision) -> Service:
    environment = {"PEER_RUNTIME": "openvino", "PEER_PRECISION": precision, "MOSEC_LOG_LEVEL": "error"}
    return Service(
        name,
        "mosec, OpenVINO",
        precision,
        ("benchmarks.peers.mosec_stages",),
        environment,
        path="/inference",
        bodies=("raw",),
    )


def _ray_serve(name: str, precision: Precision) -> Service:
    environment = {
        "PEER_RUNTIME": "openvino",
        "PEER_PRECISION": precision,
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_AUTH_MODE": "disabled",  # it would write a token into the user's home
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    return Service(
        name,
        "Ray Serve, OpenVINO",
        precision,
        ("benchmarks.peers.ray_serve",),
        environment,
        bodies=("form", "raw"),
        busy_while_idle=True,
    )


def _mlserver(name: str, precision: Precision) -> Service:
    return Service(
        name,
        "MLServer, OpenVINO",
        precision,
        ("benchmarks.peers.mlserver_runtime",),
        {"PEER_RUNTIME": "openvino", "PEER_PRECISION": precision},
        path="/v2/models/minimodel/infer",
        bodies=("v2",),
        python=str(MLSERVER / "bin" / "python"),
    )


def _by_tensorflow(name: str, title: str, *module: str, busy_while_idle: bool = False) -> Service:
    # Turns off BentoML's telemetry and TensorFlow's messages about missing GPUs.
    environment = {"PEER_RUNTIME": "tensorflow", "BENTOML_DO_NOT_TRACK": "True", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return Service(name, title, "f32", module, environment, busy_while_idle=busy_while_idle)
