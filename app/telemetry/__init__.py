"""What the service measures and logs: Prometheus metrics, the log's format, the timings of one request.

It is told what happened and never asks; it knows no other package.
"""
