"""`python -m app.classify`: classifies files without a server.

It knows command lines, files and standard streams. It knows no HTTP.
"""
