"""Changes to a store or a pod that an operator asks for: clear, prune, recall, export."""
