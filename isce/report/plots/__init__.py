"""Plots of runs and of the theory."""
