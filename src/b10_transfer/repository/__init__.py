"""The packs of one environment: which exist, which may be used, and how new ones are published."""
