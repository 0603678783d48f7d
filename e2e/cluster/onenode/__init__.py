"""A real single-node Kubernetes cluster from pinned Go modules and a few Debian packages.
The modules are small and point one way: `cluster.py` -> `lifecycle` -> parts -> `settings`; none knows what Easel is."""
