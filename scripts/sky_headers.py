"""The products with sky coordinates in the header of each image."""

from tilestack import job, plate


def sky_headers(paths, wcs_paths, out):
    """paths and out: products by name."""
    known = [plate.cards_in(path) for path in wcs_paths]
    for name, path in out.items():
        plate.copy_with(paths[name], path, lambda shape: plate.cards_for(shape, known))


if __name__ == "__main__":
    with job.started(snakemake):
        sky_headers(
            dict(snakemake.input.items()),
            [snakemake.input.mosaic_wcs, snakemake.input.wcs],
            dict(snakemake.output.items()),
        )
