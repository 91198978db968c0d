"""The version of this package: read by the build, and recorded in every pack."""

__version__ = "1.0.0"
