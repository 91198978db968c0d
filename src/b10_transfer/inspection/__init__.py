"""Shows a store and a pod, and changes nothing: explain, doctor, info."""
