"""A made-up run of any number of frames: records that match their schemas, images of noise. No workflow, no lights."""

import json

import jsonschema
import numpy as np
import yaml
from astropy.io import fits
from matplotlib import image as images

from support import ROOT

PHASES = "SCAN_INPUT REGISTRATION PREWARP CHANNEL_SPLIT NORMALIZATION STACKING VALIDATION DONE".split()


def head(number, name, **more):
    return {"phase": number, "phase_name": name, "status": "ok", "reason": None, "summary": {}, **more}


def make(folder, *, n_frames=12, size=(300, 400), light=None, seed=1):
    """Write a run of one night in colour.

    Parameters
    ----------
    folder : Path
    n_frames : int
    size : (int, int)
        Rows and columns of the stack.
    light : dict
        Facts that all lights have on top, such as ``object``.
    """
    rng = np.random.default_rng(seed)
    for name in ("artifacts/figures", "outputs/planes", "outputs/previews", "logs", "benchmarks"):
        (folder / name).mkdir(parents=True)
    for name, record in made_records(rng, n_frames, light or {}).items():
        write(folder, name, record)
    pixels(folder, rng, n_frames, size)
    (folder / "config.yaml").write_text("run_id: made\ninput: []\n")
    clock = "2026-01-02T03:04:{:06.3f}+00:00"
    story = [{"type": "run_start", "frames_discovered": n_frames, "sessions": 1, "jobs": {"SCAN_INPUT": 2}}]
    story += [
        {"type": kind, "phase": 0, "phase_name": name, "status": "ok"}
        for name in ("SCAN_INPUT", "REGISTRATION", "STACKING")
        for kind in ("phase_start", "phase_end")
    ]
    lines = [json.dumps({"ts": clock.format(k), "run_id": "made", **event}) for k, event in enumerate(story)]
    (folder / "logs/run_events.jsonl").write_text("\n".join(lines) + "\n")
    columns = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    (folder / "benchmarks/stacking.tsv").write_text(columns + "9.5\t0:00:09\t611.9\t1\t1\t1\t0\t0\t34\t3.5\n")


def write(folder, name, record):
    """Write a record that matches its schema."""
    schema = yaml.safe_load((ROOT / f"config/artifacts/{name}.yaml").read_text())
    jsonschema.Draft202012Validator(schema).validate(record)
    (folder / f"artifacts/{name}.json").write_text(json.dumps(record))


def change(folder, name, edit):
    """Change a record in place."""
    record = json.loads((folder / f"artifacts/{name}.json").read_text())
    edit(record)
    write(folder, name, record)


def made_records(rng, n, light):
    names, session = [f"light_{k:05d}.fits" for k in range(1, n + 1)], "01_night"

    def near(centre, spread, digits=4):
        return [round(float(v), digits) for v in rng.normal(centre, spread, n)]

    fwhm, noise, scale, sky = near(2.7, 0.2), near(80, 2), near(0.95, 0.03), near(900, 20)
    own = [{"file": f, "session": session, "batch": "0001", "index": k} for k, f in enumerate(names)]
    times = [f"2026-01-02T{k // 3600:02d}:{k // 60 % 60:02d}:{k % 60:02d}" for k in range(n)]
    field = {"first": [0, 0], "shape": [6, 8]}

    def tile_field(centre, spread):
        return rng.normal(centre, spread, (6, 8)).round(4).tolist()

    scanned = [
        {
            "name": f,
            "session": session,
            "status": "ok",
            "reason": None,
            "message": None,
            "warnings": [],
            "exposure_s": 10.0,
            "filter": "L",
            "gain_e_adu": None,
            "sha256": f"{k:064x}",
            "bytes": 1000,
            "object": "M 1",
            "camera": "A camera",
            "date_obs": times[k],
            **light,
        }
        for k, f in enumerate(names)
    ]
    placed = [
        {
            **entry,
            "status": "ok",
            "method": "triangles",
            "tries": [],
            "transform": [[1, 0, 3], [0, 1, 2]],
            "reason": None,
            "exposure_s": 10.0,
            "filter": "L",
            "gain_e_adu": None,
            "date_obs": times[k],
            "sha256": f"{k:064x}",
            "inliers": 40,
            "residual_px": r,
            "error_px": 0.03,
            "rotation_deg": round(0.01 * k, 4),
            "shift_px": [y, x],
        }
        for k, (entry, r, y, x) in enumerate(zip(own, near(0.2, 0.02), near(3, 4), near(-2, 4), strict=True))
    ]
    measured = [
        {
            **entry,
            "exposure_s": 10.0,
            "area": 1.0,
            "error_px": 0.03,
            "scale": [t] * 3,
            "scale_error": 0.006,
            "fwhm_px": f,
            "fwhm_error_px": 0.02,
            "gradient_adu": [3.0] * 3,
            "gradient_deg": [80.0] * 3,
            "sky_adu": [s, s + 100, s - 50],
            "noise_adu": [v] * 3,
            "gradient_energy": 2000.0,
            "transparency": [t] * 3,
            "wfwhm_px": f + 0.2,
            "roundness": r,
            "n_stars": 60,
            "score": 0.1,
            "weight": [t**2 / v**2 / f] * 3,
        }
        for entry, f, v, t, s, r in zip(own, fwhm, noise, scale, sky, near(0.9, 0.02), strict=True)
    ]
    plane = {"model": "plane", "centre": [1.0, 1.0], "length": 1.0, "coefficients": [0.0], "n_cells": 9, "rms": 1.0}
    scaled = [
        {
            **entry,
            "exposure_s": 10.0,
            "area": 1.0,
            "error_px": 0.03,
            "fwhm_px": f,
            "fwhm_error_px": 0.02,
            "n_fwhm_stars": 40,
            "scale": [t] * 3,
            "scale_error": 0.006,
            "n_stars": 40,
            "scale_method": "stars",
            "sky": [plane] * 3,
            "sky_level_adu": [s] * 3,
            "noise_adu": [v] * 3,
            "pixel_noise_adu": [v] * 3,
            "gradient_adu": [3.0] * 3,
            "gradient_deg": [80.0] * 3,
        }
        for entry, f, v, t, s in zip(own, fwhm, noise, scale, sky, strict=True)
    ]
    rejected = [
        {
            "file": f,
            "session": session,
            "batch": "0001",
            "kept_px": 100_000,
            "rejected_px": int(count),
            "saturated_px": 0,
            "rejected_share": float(count) / 100_000,
            "streak_px": 0,
            "raw_rejected_px": 0,
        }
        for f, count in zip(names, rng.integers(50, 400, n), strict=True)
    ]
    spread = {
        "session": session,
        "rms_ln_fwhm": 0.03,
        "rms_ln_t": 0.03,
        "rms_ln_variance": 0.02,
        "predicted_gain": 0.01,
    }
    checks = ("fwhm_of_frames", "tile_lattice", "rejected_share")
    group = {"id": "01", "size": n, "words": "all frames", "mean": {}}
    return {
        "scan_input": head(
            0,
            "SCAN_INPUT",
            mode="reduced",
            colour_mode="osc",
            filter="L",
            reasons={},
            warnings={},
            sessions=[
                {
                    "id": session,
                    "folder": "/lights",
                    "shape": [300, 400],
                    "colour_mode": "osc",
                    "bayer_pattern": "GRBG",
                    "saturation_adu": 65000.0,
                }
            ],
            files=scanned,
            disk={"need_bytes": 1, "written_bytes": 1, "free_bytes": 9},
        ),
        "registration": head(
            1,
            "REGISTRATION",
            reference=names[0],
            reference_session=session,
            photometric_reference=names[0],
            methods={"triangles": n},
            sessions=[
                {
                    "session": session,
                    "model": "affine",
                    "distortion": False,
                    "shift_range_px": [9.0, 8.0],
                    "rotation_range_deg": 0.3,
                    "median_step_px": 2.0,
                    "dither_share": 0.9,
                }
            ],
            frames=placed,
        )
        | {"summary": {"frames": n, "matched": n, "median_residual_px": 0.2}},
        "normalization": head(
            4,
            "NORMALIZATION",
            channels=["R", "G", "B"],
            anchor=names[0],
            sessions=[{"session": session, "gain": {"e_per_adu": 0.08, "error": 0.001, "source": "measured"}}],
            frames=scaled,
        )
        | {"summary": {"scale_range": [0.9, 1.0], "scaled_by_stars": n}},
        "global_metrics": head(
            5,
            "GLOBAL_METRICS",
            channels=["R", "G", "B"],
            quality_model="physical",
            objective="balanced",
            frames=measured,
        ),
        "tile_grid": head(
            6,
            "TILE_GRID",
            fwhm_px=2.7,
            wanted_px=80.0,
            tile_px=80,
            stride_px=60,
            overlap_px=20,
            rows=6,
            columns=8,
            first_centre_px=[30.0, 30.0],
        ),
        "local_metrics": head(
            8,
            "LOCAL_METRICS",
            channels=["R", "G", "B"],
            sessions=[
                {**spread, "tiles": field, "star_tiles": 9, "structure_tiles": 0, "structure_exponent": None},
            ],
            frames=[],
        )
        | {"summary": {"predicted_gain": 0.01, "local_weights_matter": True}},
        "tile_reconstruction": head(
            9,
            "TILE_RECONSTRUCTION",
            canvas=[0, 0, 300, 400],
            rejected_share=0.002,
            eta_sb=0.98,
            differs_px=0,
            saturated_px=0,
            drizzled=None,
            boundary_step=1.0,
            sessions=[spread],
            tiles={
                **field,
                "mean_frames": tile_field(n, 0.1),
                "rejected_share": tile_field(0.002, 0.0003),
                "eta_sb": tile_field(0.98, 0.003),
                "effective_frames": tile_field(n, 0.1),
                "fwhm_px": tile_field(2.7, 0.05),
                "split_chi2": tile_field(1, 0.03),
                "predicted_gain": tile_field(0.01, 0.003),
                "achieved_gain": tile_field(0.01, 0.01),
            },
            frames=rejected,
        ),
        "state_clustering": head(
            10,
            "STATE_CLUSTERING",
            sessions=[
                {
                    "session": session,
                    "n_clusters": 1,
                    "silhouette": None,
                    "stability": None,
                    "method": "one",
                    "clusters": [group],
                }
            ],
            frames=[{"file": f, "session": session, "cluster": "01"} for f in names],
        )
        | {"status": "skipped", "reason": "reduced_mode"},
        "stacking": head(
            12,
            "STACKING",
            mode="reduced",
            source="reconstruction",
            method=None,
            crop=[0, 0, 300, 400],
            replaced_px=None,
            image="outputs/stacked.fits",
            efficiency_kind="formula",
            eta_sb=0.98,
            eta_pt=0.97,
            t_eff_s=9.8 * n,
            live_s=10.0 * n,
            fwhm_px=2.7,
            waterfall=[{"cause": c, "share": s} for c, s in (("registration", 0.0), ("weights", 0.02))],
        ),
        "validation": head(
            12,
            "STACKING",
            checks=[{"name": c, "value": 0.5, "threshold": 1.0, "ok": True, "advice": None} for c in checks],
        ),
        "run_status": head(
            17,
            "DONE",
            phases=[{"phase": k, "phase_name": name, "status": "ok"} for k, name in enumerate(PHASES)],
            products=[{"path": "outputs/stacked.fits", "bytes": 5_000_000, "sha256": "0" * 64}],
        ),
    }


def pixels(folder, rng, n_frames, size):
    """Images of noise: nothing is harder to compress."""
    noise = rng.normal(1000, 20, (3, *size)).astype(np.float32)
    variance = np.full_like(noise, 400)
    header = fits.Header({"CONFHASH": "abcdef012345", "LATTX0": -3, "LATTY0": -2, "ROWORDER": "TOP-DOWN"})

    def stack(path, image, planes):
        hdus = [fits.PrimaryHDU(image, header), *(fits.ImageHDU(plane, name=name) for name, plane in planes.items())]
        fits.HDUList(hdus).writeto(folder / "outputs" / path)

    stack("stacked_rgb.fits", noise, {"VAR": variance})
    stack("planes/plain_mean_rgb.fits", noise + rng.normal(0, 5, noise.shape).astype(np.float32), {})
    counts = np.full(size, n_frames, np.int16)
    planes = {"NIM": counts, "EXP": counts * np.float32(10), "REJ": (noise[0] > 1050).astype(np.int16)}
    stack("stacked.fits", noise[0], planes)
    shown = rng.integers(0, 256, (*size, 3), np.uint8)
    images.imsave(folder / "outputs/previews/stacked_rgb.png", shown)
