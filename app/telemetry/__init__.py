"""What the service measures and logs: Prometheus metrics, the log format, the timings of a request.

Other packages report to it. It does not query them.
"""
