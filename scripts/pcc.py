"""Colour calibration by catalogue stars, and photometric zero points."""

from astropy.io import fits

from tilestack import calibration, job, preview, products, records


def pcc(paths, out, *, options):
    """paths: image, before, mosaic, stars and the records read below; out: image, stars, previews, figure, record."""
    read = {name: records.read(paths[name]) for name in ("astrometry", "debayer", "channels")}
    stack = calibration.opened(paths["image"])
    with fits.open(paths["before"]) as hdus:
        stack["before"] = hdus[0].data.reshape(stack["planes"].shape)
    reason = None if options["enabled"] else "switched_off"
    if reason is None and read["astrometry"]["status"] != "ok":
        reason = "no_sky_coordinates"
    found = calibration.nothing(reason)
    if reason is None:
        stars = calibration.star_fluxes(stack, paths, read["debayer"]["method"], read["channels"]["bayer_pattern"])
        found = calibration.calibrated(stack, stars, options["white_reference"])
    image = calibration.image_of(stack, found)
    cards = stack["cards"] | calibration.cards_of(found)
    products.write(
        out["image"], image, cards, calibration.extensions_of(stack, found), history=[f"colours: {found['note']}"]
    )
    calibration.write_stars(out["stars"], found)
    preview.write(out["preview"], image, flip=products.bottom_up(cards), full=out["preview_full"])
    calibration.draw(out["figure"], found)
    records.write(out["record"], calibration.record_of(found, options["white_reference"], read["astrometry"]))


if __name__ == "__main__":
    with job.started(snakemake):
        pcc(dict(snakemake.input.items()), dict(snakemake.output.items()), options=snakemake.params.options)
