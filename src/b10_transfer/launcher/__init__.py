"""Keeps a server's caches: restores before it starts, saves what it compiles, says what came of it."""
