"""The service's own endpoints: `/predict`, `/health`, `/model` and `/metrics`, with the schemas of their replies.

Handlers are thin: they know neither Pillow nor a runtime, and leave HTML and the Open Inference Protocol to others.
"""
