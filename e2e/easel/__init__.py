"""Builds, installs and uses Easel on a cluster; `up.py`, `test.py` and the promises are written with it."""
