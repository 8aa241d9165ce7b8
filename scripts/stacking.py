"""The final linear image, with its planes, its inputs, and how close it is to the best."""

from tilestack import efficiency, finishing, job, products, records, stackfiles


def stacking(paths, out, *, run_id, config_hash, cosmetic, crop_coverage, n_processes=1):
    """paths: direct_... and synthetic_..., files of both stacks; synthetic_record, reconstruction, scan, registration,
    global_metrics, channels, reference, and gain (normalization); out: record, header, preview, preview_full, and the
    files of the stack."""
    keys = ("reconstruction", "scan", "registration", "global_metrics", "channels", "reference", "gain")
    read = {key: records.read(paths[key]) for key in (*keys, "synthetic_record")}
    made = read["synthetic_record"]
    ours = stackfiles.used(paths, made["combined"])
    canvas, pattern = read["reconstruction"]["canvas"], read["channels"]["bayer_pattern"]
    plane, box, replaced = finishing.of_mosaic_in(ours, canvas, pattern, cosmetic, crop_coverage)
    used = [frame for frame in read["registration"]["frames"] if frame["transform"] is not None]
    score = efficiency.score(read, used, made["variance_ratio"] or 1.0)
    grid = read["reference"]["lattice"]
    light = next(
        f
        for f in read["scan"]["files"]
        if (f["session"], f["name"])
        == (read["reference"]["photometric"]["session"], read["reference"]["photometric"]["file"])
    )
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
            "canvas": box,
            "bayer_pattern": pattern,
        },
    )
    history = [f"{len(used)} of {len(read['scan']['files'])} lights, lattice of {grid['file']}"]
    finishing.write(ours, plane, out, cards, n_processes)
    products.write_header(out["header"], cards, history, products.inputs_table(products.input_rows(read)))
    summary = {"frames": len(used), **{key: score[key] for key in ("eta_sb", "eta_pt", "t_eff_s", "fwhm_px")}}
    records.write(
        out["record"],
        {
            "phase": 12,
            "phase_name": "STACKING",
            "status": "ok",
            "summary": summary,
            "mode": read["scan"]["mode"],
            "source": made["source"],
            "method": made["method"],
            "crop": box,
            "replaced_px": replaced,
            "image": "outputs/stacked.fits",
            "efficiency_kind": "formula",
            **score,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        stacking(
            dict(snakemake.input.items()),
            dict(snakemake.output.items()),
            run_id=snakemake.params.run_id,
            config_hash=products.config_hash(snakemake.params.config),
            cosmetic=snakemake.params.cosmetic,
            crop_coverage=snakemake.params.crop_coverage,
            n_processes=snakemake.threads,
        )
