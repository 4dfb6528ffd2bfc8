"""`python -m app.classify`: the same model for files, without a server.

It knows command lines, files and standard streams; it knows no HTTP.
"""
