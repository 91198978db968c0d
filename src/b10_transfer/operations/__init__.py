"""One load, one save, and the public functions, where errors become an OperationStatus."""
