"""Runs a SavedModel as a function from a batch of images to probabilities, with OpenVINO or TensorFlow.

It chooses precision and threads for the CPU. It does not decide whether a model may serve.
"""
