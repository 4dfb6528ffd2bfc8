"""TensorFlow Serving's REST API under `/v1`, as its clients, KServe's V1 clients and many tutorials use it.

It knows the protocol's JSON. It classifies with the same code as the API.
"""
