"""For the tests of a store: the store in memory."""
