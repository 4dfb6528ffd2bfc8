"""What handlers need of the process that they run in, as FastAPI hands it to them."""

from typing import Annotated

from fastapi import Depends, Request

from app.inference.classifier import Classifier
from app.settings import Settings
from app.telemetry.metrics import Metrics


async def get_classifier(request: Request) -> Classifier:
    """Return the process's one classifier."""
    classifier: Classifier = request.app.state.classifier
    return classifier


async def get_settings(request: Request) -> Settings:
    """Return the settings that the application was made with."""
    settings: Settings = request.app.state.settings
    return settings


async def get_metrics(request: Request) -> Metrics:
    """Return what the process counts and measures."""
    metrics: Metrics = request.app.state.metrics
    return metrics


ClassifierDep = Annotated[Classifier, Depends(get_classifier)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
MetricsDep = Annotated[Metrics, Depends(get_metrics)]
