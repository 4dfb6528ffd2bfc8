"""Makes the function that loads a version: after a preflight, in the runtime and precision from the settings."""

from collections.abc import Callable, Sequence
from pathlib import Path

from app.contract import ModelMetadata
from app.runtime.load import Runtime, count_workers, load_runtime
from app.runtime.precision import choose_precision
from app.settings import Settings
from app.versions.model import Model
from app.versions.preflight import run_preflight
from app.versions.verify import load_model

Load = Callable[[Path], Model]
"""Returns the model in a version folder, or raises as `load_model` does."""


def make_loader(settings: Settings, *, batch_sizes: Sequence[int]) -> Load:
    """Return a function that loads a version, ready for batches of these sizes."""
    workers = count_workers(settings.runtime, settings.inference_threads)
    has_loaded = False  # then a version may be serving while the next one loads

    def load(folder: Path) -> Model:
        nonlocal has_loaded
        model = load_model(folder, load_runtime=check_and_load, batch_sizes=batch_sizes, workers=workers)
        has_loaded = True
        return model

    def check_and_load(folder: Path, metadata: ModelMetadata) -> Runtime:
        precision = choose_precision(settings.precision, metadata)
        run_preflight(
            folder,
            runtime=settings.runtime,
            precision=precision,
            batch_sizes=batch_sizes,
            memory_bytes=settings.max_model_memory_bytes,
            background=has_loaded,
        )
        return load_runtime(folder, name=settings.runtime, precision=precision, threads=settings.inference_threads)

    return load
