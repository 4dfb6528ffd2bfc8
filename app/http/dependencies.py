"""Gives handlers access to the application's objects."""

from fastapi import Request

from app.http.cache import Cache
from app.inference.classifier import Classifier
from app.settings import Settings
from app.telemetry.metrics import Metrics


def get_classifier(request: Request) -> Classifier:
    """Return the application's classifier."""
    classifier: Classifier = request.app.state.classifier
    return classifier


def get_settings(request: Request) -> Settings:
    """Return the application's settings."""
    settings: Settings = request.app.state.settings
    return settings


def get_metrics(request: Request) -> Metrics:
    """Return the application's metrics."""
    metrics: Metrics = request.app.state.metrics
    return metrics


def get_cache(request: Request) -> Cache[bytes]:
    """Return the application's cache of answers that are the same for all clients."""
    cache: Cache[bytes] = request.app.state.cache
    return cache
