"""The report of a run: one HTML file that asks nothing of the network, and what Snakemake's own report shows."""
