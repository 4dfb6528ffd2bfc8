"""What every HTTP answer shares: bodies in, problem details out, authentication, deadlines, the access log.

It knows ASGI and no particular endpoint; it never decodes an image and never runs a model.
"""
