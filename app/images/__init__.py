"""From an untrusted file's bytes to pixels: the only package that knows Pillow.

It knows no model, no settings and no HTTP.
"""
