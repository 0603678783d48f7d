"""A registry and an S3-compatible server as pods of the local cluster; tests and the benchmark push checkpoints there.

It must not know what Easel is.
"""
