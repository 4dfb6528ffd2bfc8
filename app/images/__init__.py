"""Decodes untrusted image files to pixels. The only package that imports Pillow.

It knows no model, no settings and no HTTP.
"""
