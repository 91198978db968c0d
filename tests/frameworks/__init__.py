"""Tests with real frameworks, in environments of their own (`make test-frameworks`)."""
