"""Sockets: the listener, one connection's limits and states, signals and the drain at the end.

It knows uvicorn and HTTP/1.1 framing; it knows nothing of FastAPI's routes, images or models.
"""
