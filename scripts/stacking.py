"""The final linear image, with its planes, its inputs, and how close it is to the best."""

import numpy as np
from tilestack import bayer, efficiency, files, job, preview, products, records
from tilestack.records import rounded

# Bits of MASK are in the header of that plane; these planes go with the product.
PRODUCT_PLANES = ("VAR", "WHT", "EXP", "NIM", "REJ", "MASK")
COMPARISONS = {"even": "EVEN", "odd": "ODD", "plain_mean": "MEAN", "inverse_variance": "IVAR"}


def stacking(paths, out, *, run_id, config_hash):
    """paths: image, reconstruction, scan, registration, global_metrics, channels, reference, gain (normalization)."""
    keys = ("reconstruction", "scan", "registration", "global_metrics", "channels", "reference", "gain")
    read = {key: records.read(paths[key]) for key in keys}
    used = [frame for frame in read["registration"]["frames"] if frame["transform"] is not None]
    score = quality(read, used)
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
    table = products.inputs_table(input_rows(read))
    products.write(out["image"], planes["SCI"], cards, extensions, [table], history)
    for name, plane in COMPARISONS.items():
        products.write(out[name], planes[plane], {**cards, "CONTENT": f"{name} stack, for comparison"})
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


def quality(read, used):
    """Efficiencies by formula, effective exposure, and where the rest went."""
    frames = read["global_metrics"]["frames"]
    scale, noise, weight = (records.array([f[key] for f in frames]).mean(1) for key in ("scale", "noise_adu", "weight"))
    fwhm = records.array([f["fwhm_px"] for f in frames])
    fwhm = np.where(np.isfinite(fwhm), fwhm, np.nanmedian(fwhm))
    variance = noise**2 / scale**2
    by_weights, rejected = efficiency.extended(weight, variance), read["reconstruction"]["rejected_share"]
    exposures = [f["exposure_s"] for f in used]
    live = sum(exposures) if all(exposures) else None
    listed = [f for f in read["registration"]["frames"] if f["status"] != "excluded"]
    lost = 1 - len(used) / len(listed)
    eta_sb = read["reconstruction"]["eta_sb"]
    return {
        "eta_sb": rounded(eta_sb, 4),
        "eta_pt": rounded(efficiency.point(weight, variance, fwhm) * (1 - rejected), 4),
        "t_eff_s": rounded(eta_sb * live, 5) if live else None,
        "live_s": live,
        "fwhm_px": rounded((weight * fwhm).sum() / weight.sum(), 4),
        "waterfall": [
            {"cause": "registration", "share": rounded(lost, 4)},
            {"cause": "weights", "share": rounded(1 - by_weights, 4)},
            {"cause": "rejection", "share": rounded(rejected, 4)},
        ],
    }


def input_rows(read):
    """A row a light for the INPUTS table."""
    registered = {(f["session"], f["file"]): f for f in read["registration"]["frames"]}
    weighed = {(f["session"], f["file"]): f for f in read["global_metrics"]["frames"]}
    rejected = {(f["session"], f["file"]): f["rejected_share"] for f in read["reconstruction"]["frames"]}
    rows = []
    for light in read["scan"]["files"]:
        key = (light["session"], light["name"])
        frame, whole = registered[key], weighed.get(key, {})
        shift = frame.get("shift_px") or [None, None]
        rows.append(
            {
                **{name: light.get(name) for name in ("session", "sha256", "status")},
                "file": light["name"],
                "method": frame["method"],
                "weight": np.mean(whole["weight"]) if whole else None,
                "scale": np.mean(whole["scale"]) if whole else None,
                "noise": np.mean(whole["noise_adu"]) if whole else None,
                "fwhm": whole.get("fwhm_px"),
                "shift_y": shift[0],
                "shift_x": shift[1],
                "rotation": frame.get("rotation_deg"),
                "rejected": rejected.get(key),
            }
        )
    return rows


if __name__ == "__main__":
    with job.started(snakemake):
        stacking(
            dict(snakemake.input.items()),
            dict(snakemake.output.items()),
            run_id=snakemake.params.run_id,
            config_hash=products.config_hash(snakemake.params.config),
        )
