"""From an image to scores: decoding, the queue, batches, and `Retry-After` for rejected clients.

It knows no HTTP and no runtime. It runs the model that the store holds.
"""
