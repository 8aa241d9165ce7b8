"""Simulated series of lights of a real star field, with the truth behind them.

Stands apart from the package that processes frames and imports nothing of it. Profiles, clouds, gradients and trails
come from families that the package does not model, so that it is not tested against its own assumptions.
"""
