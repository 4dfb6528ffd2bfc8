"""A SavedModel as a function from a batch of images to probabilities, by OpenVINO or TensorFlow.

It chooses precision and threads for this CPU; it does not know whether a model may serve.
"""
