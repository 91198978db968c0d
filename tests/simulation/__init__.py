"""Fleets of any size in simulated time: the project's own code over simulated stores and clocks."""
