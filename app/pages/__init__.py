"""HTML for people: the upload form and its results, the model card, the API documentation.

It owns templates and static files. It classifies with the same code as the API and makes no decisions of its own.
"""
