"""What handlers need of the application that a request came to."""

from fastapi import Request

from app.http.cache import Cache
from app.inference.classifier import Classifier
from app.settings import Settings
from app.telemetry.metrics import Metrics


def get_classifier(request: Request) -> Classifier:
    """Return the application's one classifier."""
    classifier: Classifier = request.app.state.classifier
    return classifier


def get_settings(request: Request) -> Settings:
    """Return the settings that the application was made with."""
    settings: Settings = request.app.state.settings
    return settings


def get_metrics(request: Request) -> Metrics:
    """Return what the application counts and measures."""
    metrics: Metrics = request.app.state.metrics
    return metrics


def get_cache(request: Request) -> Cache[bytes]:
    """Return what the application has written for everybody within the last second."""
    cache: Cache[bytes] = request.app.state.cache
    return cache
