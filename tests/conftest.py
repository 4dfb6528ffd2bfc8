"""Shared by all tests."""

import os

# Clients in most tests send any host. The tests of `app.http.origin` set their own.
os.environ["APP_ALLOWED_HOSTS"] = "*"
