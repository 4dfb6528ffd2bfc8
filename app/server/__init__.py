"""Sockets: the listener, the limits and states of connections, signals and the drain.

It knows uvicorn and HTTP/1.1 framing. It knows no endpoints, images or models.
"""
