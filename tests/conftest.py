"""What all tests share."""

import os

# Most tests care for no host, and their clients send any. Those of `app.http.origin` set their own.
os.environ["APP_ALLOWED_HOSTS"] = "*"
