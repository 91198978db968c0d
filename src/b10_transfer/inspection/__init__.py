"""Reads a store and a pod for people, and changes nothing: explain, doctor, info."""
