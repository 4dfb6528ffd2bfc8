"""TensorFlow Serving's REST API under `/v1`, as its clients, KServe's V1 clients and many tutorials use it.

It knows the protocol's JSON; images and arrays go the way of all others through the classifier.
"""
