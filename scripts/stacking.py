"""The final linear image, with its planes, its inputs, and how close it is to the best."""

from tilestack import bayer, efficiency, files, job, preview, products, records

# Bits of MASK are in the header of that plane; these planes go with the product.
PRODUCT_PLANES = ("VAR", "WHT", "EXP", "NIM", "REJ", "MASK")
DRIZZLED_PLANES = (*PRODUCT_PLANES, "EVEN", "ODD", "MEAN")
COMPARISONS = {"even": "EVEN", "odd": "ODD", "plain_mean": "MEAN", "inverse_variance": "IVAR"}


def stacking(paths, out, *, run_id, config_hash):
    """paths: image, drizzled, reconstruction, scan, registration, global_metrics, channels, reference, and gain
    (normalization)."""
    keys = ("reconstruction", "scan", "registration", "global_metrics", "channels", "reference", "gain")
    read = {key: records.read(paths[key]) for key in keys}
    used = [frame for frame in read["registration"]["frames"] if frame["transform"] is not None]
    score = efficiency.score(read, used)
    grid = read["reference"]["lattice"]
    light = next(
        f
        for f in read["scan"]["files"]
        if (f["session"], f["name"])
        == (read["reference"]["photometric"]["session"], read["reference"]["photometric"]["file"])
    )
    canvas, pattern = read["reconstruction"]["canvas"], read["channels"]["bayer_pattern"]
    cards = products.cards(
        read["scan"],
        used,
        {
            "run_id": run_id,
            "config_hash": config_hash,
            "reference": light,
            "saturation_adu": read["scan"]["sessions"][0]["saturation_adu"],
            "gain_e_adu": read["gain"]["gain"]["e_per_adu"],
            "eta_sb": score["eta_sb"],
            "eta_pt": score["eta_pt"],
            "effective_s": score["t_eff_s"],
            "fwhm_px": score["fwhm_px"],
            "canvas": canvas,
        },
    )
    if light.get("row_order"):
        cards["ROWORDER"] = light["row_order"]
    if pattern:
        cards["BAYERPAT"] = bayer.pattern_for_header(pattern, canvas[2:], light.get("row_order"))
    history = [f"{len(used)} of {len(read['scan']['files'])} lights, lattice of {grid['file']}"]
    with files.opened(paths["image"]) as hdus:
        planes = {hdu.name: files.native(hdu.data[0]) for hdu in hdus[1:]}
    extensions = [(name, planes[name]) for name in PRODUCT_PLANES]
    table = products.inputs_table(products.input_rows(read))
    products.write(out["image"], planes["SCI"], cards, extensions, [table], history)
    for name, plane in COMPARISONS.items():
        products.write(out[name], planes[plane], {**cards, "CONTENT": f"{name} stack, for comparison"})
    drizzled_planes(paths["drizzled"], out["drizzled"], cards, read["reconstruction"]["drizzled"])
    flip = (light.get("row_order") or "").upper() == "BOTTOM-UP"
    preview.write(out["preview"], planes["SCI"], flip=flip)
    summary = {"frames": len(used), **{key: score[key] for key in ("eta_sb", "eta_pt", "t_eff_s", "fwhm_px")}}
    records.write(
        out["record"],
        {
            "phase": 12,
            "phase_name": "STACKING",
            "status": "ok",
            "summary": summary,
            "mode": read["scan"]["mode"],
            "source": "reconstruction",
            "image": "outputs/stacked.fits",
            "efficiency_kind": "formula",
            **score,
        },
    )


def drizzled_planes(path, out, cards, drizzled):
    """Write the drizzled planes as a product; without any, a product that says so."""
    if drizzled is None:
        products.write(out, None, {**cards, "CONTENT": "nothing was to be drizzled"})
        return
    with files.opened(path) as hdus:
        planes = {hdu.name: files.native(hdu.data) for hdu in hdus[1:]}
    more = {
        "DRZKERN": (drizzled["kernel"], "shape of a drop"),
        "DRZFRAC": (drizzled["pixfrac"], "size of a drop in raw pixels"),
        "DRZSCALE": (drizzled["scale"], "output pixels per lattice pixel and axis"),
        "NOISERAT": (drizzled["r_factor"], "noise of large areas over that of VAR"),
    }
    cards = {key: card for key, card in cards.items() if key != "BAYERPAT"}
    cards = products.at_scale(cards, drizzled["scale"]) | more
    products.write(out, planes["SCI"], cards, [(name, planes[name]) for name in DRIZZLED_PLANES])


if __name__ == "__main__":
    with job.started(snakemake):
        stacking(
            dict(snakemake.input.items()),
            dict(snakemake.output.items()),
            run_id=snakemake.params.run_id,
            config_hash=products.config_hash(snakemake.params.config),
        )
