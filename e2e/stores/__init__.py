"""A registry and an S3-compatible server as pods of the local cluster; tests and the benchmark push checkpoints there.

It must not know what Easel is.
"""

from easel import paths  # noqa: F401  (puts the cluster's package, `onenode`, into the path)
