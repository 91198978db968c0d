"""Looks at stores and local caches for people: what is there, why a pod would miss, what is wrong with a set-up."""
