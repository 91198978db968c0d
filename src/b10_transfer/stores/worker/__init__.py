"""A store in a process of its own, which can be killed if a mount or a client hangs."""
