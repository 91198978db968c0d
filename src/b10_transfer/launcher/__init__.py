"""Runs a server: restores its caches before it starts, saves what it compiles, and reports what was used."""
