"""The service's own endpoints: `/predict`, `/health`, `/model` and `/metrics`, and the schemas of their responses.

Handlers are thin. They know neither Pillow nor a runtime, neither HTML nor the Open Inference Protocol.
"""
