"""Sky coordinates of the result."""

from functools import partial

import numpy as np
from astropy.io import fits

from tilestack import fieldstars, files, job, plate, records, wcsfit


def astrometry(paths, out, *, options, source, cache):
    """paths: image and its header, mosaic; out: wcs, mosaic_wcs, stars, annotated, record."""
    with fits.open(paths["image"]) as hdus:
        planes = files.native(hdus[0].data)
    header = fits.getheader(paths["header"])
    lattice = fits.getheader(paths["mosaic"])
    shape, lattice_shape = planes.shape[-2:], (lattice["NAXIS2"], lattice["NAXIS1"])
    size = lattice_shape[1] / shape[1]
    size = round(size) if size > 1 else 1 / round(1 / size)  # of super-pixels an odd last column is left out
    result = {"fit": None, "solver": None, "tries": []}
    if options["enabled"]:
        catalogue = partial(fieldstars.of_field, source=source, cache=cache)
        found = plate.detections(planes)
        result = plate.solve(found, shape, header, options, size=1 / size, catalogue=catalogue)
    fit, sky = result["fit"], result.get("sky")
    plate.write_header(out["wcs"], plate.cards_of(fit, shape), shape)
    plate.write_header(out["mosaic_wcs"], plate.cards_of(fit, shape, size), lattice_shape)
    plate.write_stars(out["stars"], sky, fit, shape)
    plate.annotate(out["annotated"], planes, header, fit, sky)
    records.write(out["record"], record_of(result, shape, size, options, source))


def record_of(result, shape, size, options, source):
    """The record of the phase; size: lattice pixels to one of the image, along each axis."""
    fit = result["fit"]
    nothing = "ra_deg dec_deg scale_arcsec rotation_deg parity field_deg".split()
    facts = dict.fromkeys(nothing) if fit is None else wcsfit.geometry(fit.wcs, shape)
    residual = np.zeros(0) if fit is None else fit.residual_arcsec
    facts |= {
        "n_matches": len(residual),
        "rms_arcsec": float(np.sqrt(np.mean(residual**2))) if fit else None,
        "median_arcsec": float(np.median(residual)) if fit else None,
        "max_arcsec": float(residual.max()) if fit else None,
        "matched_share": fit.share if fit else None,
        "lattice_scale_arcsec": facts["scale_arcsec"] / size if fit else None,
        "sip_order": (fit.order if fit.order > 1 else 0) if fit else None,
    }
    reason = None if fit else "no_solution" if options["enabled"] else "switched_off"
    fell_back = fit is not None and source == "gaia" and result["catalogue"] != "Gaia DR3"
    return {
        "phase": 14,
        "phase_name": "ASTROMETRY",
        "status": "ok" if fit else "skipped",
        "reason": reason,
        "warnings": {"catalogue_fallback": 1} if fell_back else {},
        "summary": {key: facts[key] for key in ("n_matches", "rms_arcsec", "ra_deg", "dec_deg", "scale_arcsec")},
        "solver": result["solver"],
        "catalogue": result.get("catalogue"),
        **facts,
        "tries": result["tries"],
    }


if __name__ == "__main__":
    with job.started(snakemake):
        astrometry(
            dict(snakemake.input.items()),
            dict(snakemake.output.items()),
            options=snakemake.params.options,
            source=snakemake.params.source,
            cache=snakemake.params.cache,
        )
