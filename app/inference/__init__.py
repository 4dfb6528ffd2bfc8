"""From an image to scores: decoding, the queue, batches, and when rejected clients should retry.

It knows no HTTP and no runtime; it runs whatever model the store holds.
"""
