"""Changes a store or a pod at the request of an operator: clear, prune, recall, export."""
