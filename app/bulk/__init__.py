"""`python -m app.bulk`: classifies a data set on Ray, into Parquet files.

It knows command lines, pyarrow's file systems and, in one module, Ray. It knows no HTTP. The extra `bulk` installs what
it needs; the service does not import it.
"""
