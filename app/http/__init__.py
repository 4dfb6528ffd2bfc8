"""What all HTTP answers share: uploads, problem details, authentication, deadlines, the access log.

It knows ASGI, but no endpoint. It never decodes an image or runs a model.
"""
