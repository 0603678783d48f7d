"""Figures beside those of peers, on the same machine and in the same run; nothing here is part of `make test`."""

from easel import paths  # noqa: F401  (puts the cluster's package, `onenode`, into the path)
