from easel import paths  # noqa: F401  (puts the cluster's package, `onenode`, into the path)
