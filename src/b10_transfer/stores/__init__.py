"""Where packs live. ``base`` is the contract; every other module here is one store that keeps it, or a wrapper.

Nothing is imported here: the worker process (``serve``) starts with this package and must start fast.
"""
