"""Settle the channel model: which channels there are and what later phases work on."""

from tilestack import job, records


def channel_split(reference_path, out, *, profile, cfa):
    lattice = records.read(reference_path)["lattice"]
    mosaic = lattice["bayer_pattern"] is not None
    colour_mode = "osc" if mosaic else "mono"
    records.write(
        out,
        {
            "phase": 3,
            "phase_name": "CHANNEL_SPLIT",
            "status": "ok",
            "summary": {"colour_mode": colour_mode, "channels": lattice["channels"]},
            "colour_mode": colour_mode,
            "bayer_pattern": lattice["bayer_pattern"],
            "channels": lattice["channels"],
            # One plane in which each lattice pixel has the colour of its Bayer phase, or one plane of no colour.
            "planes": ["MOSAIC" if mosaic else "MONO"],
            "prewarp": cfa if mosaic else "mono",
            "metrics": "channels" if profile == "strict" else "luminance",
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        channel_split(
            snakemake.input.reference, snakemake.output[0], profile=snakemake.params.profile, cfa=snakemake.params.cfa
        )
