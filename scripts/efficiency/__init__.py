"""Measured efficiency: what a finished run makes of light that is known, against the best that its frames allow.

Imported by scripts/measure_efficiency.py and by the acceptance suite; nothing of the main job imports it.
"""
