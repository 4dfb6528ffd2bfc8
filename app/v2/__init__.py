"""The Open Inference Protocol under `/v2`, as clients of Triton and KServe use it: tensors in, tensors out.

It knows the protocol's JSON and binary tensors. It never sees an encoded image.
"""
