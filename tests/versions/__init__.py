"""The versions of torch and Python that we support, each tried in an environment of its own: ``make test-matrix``."""
