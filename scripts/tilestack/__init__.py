"""Shared code of the workflow: lights and FITS files, geometry, stars, sky, weights, sums; compiled code in kernels."""
