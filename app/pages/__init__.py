"""HTML for people: the form at `/`, its answers, the model card, the API's documentation.

It owns templates and static files; it classifies through the same code as the API and decides nothing itself.
"""
