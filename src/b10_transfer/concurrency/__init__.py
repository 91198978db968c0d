"""Deadlines, and threads that never outlive the operation they work for."""
