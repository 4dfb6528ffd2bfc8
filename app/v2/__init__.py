"""The Open Inference Protocol under `/v2`: tensors in, tensors out, as Triton's and KServe's clients speak it.

It knows the protocol's JSON and binary tensors; it never sees an encoded image.
"""
