"""Lay the tiles on the lattice: their size goes by the seeing of the first session."""

import math

from tilestack import job, records


def tile_grid(reference_path, out, *, size_factor, overlap_fraction, min_px, max_px):
    reference = records.read(reference_path)
    shape, fwhm_px = reference["lattice"]["shape"], reference["fwhm_px"]
    wanted = size_factor * fwhm_px
    # Even, so that a tile holds whole Bayer cells; never larger than half of the shorter side.
    tile = 2 * round(min(max(wanted, min_px), max_px, min(shape) / 2) / 2)
    stride = 2 * max(1, round(tile * (1 - overlap_fraction) / 2))
    rows, columns = (math.ceil(n / stride) for n in shape)
    records.write(
        out,
        {
            "phase": 6,
            "phase_name": "TILE_GRID",
            "status": "ok",
            "summary": {"tile_px": tile, "stride_px": stride, "rows": rows, "columns": columns},
            "fwhm_px": fwhm_px,
            "wanted_px": wanted,
            "tile_px": tile,
            "stride_px": stride,
            "overlap_px": tile - stride,
            # Of the reference frame; the grid goes on to all sides as far as frames reach.
            "rows": rows,
            "columns": columns,
            "first_centre_px": [(stride - 1) / 2, (stride - 1) / 2],
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        tile_grid(snakemake.input.reference, snakemake.output[0], **dict(snakemake.params.tile))
