"""The service: classifies uploaded images."""
