"""The service: uploaded image in, class probabilities out."""
