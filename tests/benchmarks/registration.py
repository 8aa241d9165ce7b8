#!/usr/bin/env python3
"""Registration against known transforms, beside astroalign on the same star lists: prints the tables of
docs/benchmarks.md.

python tests/benchmarks/registration.py            (from the repository, about ten minutes)
"""

import dataclasses
import sys
import time
import warnings
from pathlib import Path

import astroalign
import numba
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from simulation import night, series  # noqa: E402
from simulation.options import Options  # noqa: E402
from tilestack import cascade, geometry, stars  # noqa: E402
from tilestack.kernels import detection, prewarp, scan, warp  # noqa: E402
from tilestack.starmatch import NoMatch  # noqa: E402

SHAPE = (1920, 1080)
CORNERS = np.array([[0, 0], [1079, 0], [0, 1919], [1079, 1919]], float)
LIMITS = {"model": "auto", "min_matches": 6, "max_residual_px": 1.0}


def turned(angle_deg, scale=1.0, mirror=False, shift=(23.0, -41.0)):
    a = np.radians(angle_deg)
    matrix = (
        scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([1.0, -1.0 if mirror else 1.0])
    )
    centre = np.array([539.5, 959.5])
    return np.column_stack([matrix, centre - matrix @ centre + shift])


def scene(rng, n, transform, cloud=1.0):
    """Two star lists of one field: n stars in the reference, the other dimmed by a cloud; errors go with brightness."""
    spread = 1.6 * max(1.0, geometry.area_scale(transform) ** -0.5)
    n_all = int(n * spread**2)
    sky = np.array([540, 960]) + (rng.uniform(0, 1, (n_all, 2)) - 0.5) * np.array([1080, 1920]) * spread
    flux = np.sort(rng.pareto(0.9, n_all) + 1)[::-1]
    lists = []
    for back, dim in ((geometry.IDENTITY, 1.0), (geometry.inverse(transform), cloud)):
        xy = geometry.apply(back, sky)
        snr = 6 * flux * dim
        seen = (xy > 0).all(1) & (xy < [1080, 1920]).all(1) & (snr > 4) & (rng.uniform(size=n_all) < 0.9)
        error = np.hypot(1.0 / snr[seen], 0.02)
        false = rng.uniform(0, [1080, 1920], (max(n // 15, 1), 2))
        here = np.vstack([xy[seen] + rng.normal(0, 1, (seen.sum(), 2)) * error[:, None] / np.sqrt(2), false])
        brightness = np.r_[snr[seen] * rng.lognormal(0, 0.1, seen.sum()), rng.uniform(4, 12, len(false))]
        order = np.argsort(-brightness)
        errors = np.r_[error, np.full(len(false), 0.15)][order]
        lists.append(
            {"x": here[order, 0], "y": here[order, 1], "position_error": errors, "flux": brightness[order, None]}
        )
    return lists


def frame_of(star_list, scale_arcsec=None):
    record = {
        "stars": star_list | {"elongation": np.ones(len(star_list["x"]))},
        "hint": {"ra_deg": None, "dec_deg": None, "scale_arcsec": scale_arcsec},
        "pixel_aspect": 1.0,
        "trailed": False,
    }

    def read():
        raise NoMatch("star lists only")

    return cascade.Frame(record, 0.0, read)


def with_headers(fixed, moving, scale):
    """Our registration where headers tell focal length and pixel size."""
    return ours(fixed, moving, scale, told=True)


def ours(fixed, moving, scale=1.0, told=False):
    reference = {
        "stars": fixed,
        "shape": SHAPE,
        "hint": frame_of(fixed, 1.0 if told else None).hint,
        "aspect": 1.0,
        "read": frame_of(fixed).read,
    }
    frame = frame_of(moving, scale if told else None)
    found = cascade.register([frame], [("reference", fixed)], reference, SHAPE, **LIMITS)
    return found["results"][0].get("transform")


def theirs(fixed, moving, scale):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, _ = astroalign.find_transform(
                np.column_stack([moving["x"], moving["y"]]), np.column_stack([fixed["x"], fixed["y"]])
            )
    except (astroalign.MaxIterError, TypeError, ValueError, IndexError):
        return None
    return found.params[:2]


def star_list_table(n_trials=40):
    head = "| case | stars in the reference |"
    for name in ("", "with header scales: ", "astroalign: "):
        head += f" {name}registered | median error px | rms px |"
    print(head)
    print("|---|---|" + "---|" * 9)
    cases = [(f"rotation {a:g}°", {"angle_deg": a}, 1.0) for a in (0.5, 37, 180)]
    cases += [("mirrored, 37°", {"angle_deg": 37, "mirror": True}, 1.0)]
    cases += [(f"scale {s:g}, 37°", {"angle_deg": 37, "scale": s}, 1.0) for s in (0.5, 0.7, 1.4, 2.0)]
    cases += [("97 % cloud, 37°", {"angle_deg": 37}, 0.03)]
    for name, arguments, cloud in cases:
        true = turned(**arguments)
        for n in (300, 30, 12):
            rng = np.random.default_rng(n)
            errors = {ours: [], with_headers: [], theirs: []}
            for _ in range(n_trials):
                fixed, moving = scene(rng, n, true, cloud)
                # Errors in the corners of what both frames show.
                corners = CORNERS if geometry.area_scale(true) <= 1 else geometry.apply(geometry.inverse(true), CORNERS)
                for method, out in errors.items():
                    transform = method(fixed, moving, arguments.get("scale", 1.0))
                    if transform is None:
                        continue
                    gap = geometry.apply(transform, corners) - geometry.apply(true, corners)
                    error = np.sqrt((gap**2).sum(1).mean())
                    if error < 5:  # a wrong match counts as none
                        out.append(error)
            row = [
                f"{len(e) / n_trials:.0%} | {_number(np.median(e) if e else np.nan)} | {_rms(e)}"
                for e in errors.values()
            ]
            print(f"| {name} | {n} | {' | '.join(row)} |", flush=True)


def _number(value):
    return "-" if np.isnan(value) else f"{value:.3f}"


def _rms(errors):
    return _number(np.sqrt(np.mean(np.square(errors))) if errors else np.nan)


def frame_table():
    """Simulated frames from pixels to transforms: clouds, trails, frames of another field."""
    base = Options(n_frames=40, height_px=1080, width_px=1920, seed=77, cloud_share=0.0)
    cases = {
        "plain": base,
        "a tenth of the frames under 97 % cloud": dataclasses.replace(base, thick_cloud_share=0.1),
        "a tenth with stars trailed by 10 px": dataclasses.replace(base, smear_share=0.1),
        "poor field (12 stars), plain": dataclasses.replace(base, faint_stars=False, zero_point_mag=14.2),
    }
    print("| frames | triangles | trails | pairs | plate | predicted | none | median error px | worst |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, options in {**cases, "5 % of another field": base}.items():
        made = series.Series(options)
        other = series.Series(dataclasses.replace(options, seed=78, ra_deg=83.8, dec_deg=-5.4, extended=False))
        records, transforms = [], []
        for k in range(options.n_frames):
            foreign = name.startswith("5 %") and k % 20 == 7
            image, state = (other if foreign else made).light(k)
            found = stars.find(image.astype(np.float32), options.pattern, sigma=4, max_stars=250, saturation=64000)
            columns = {key: found[key] for key in found if np.ndim(found[key]) and key not in ("level", "noise")}
            hint = {"ra_deg": options.ra_deg, "dec_deg": options.dec_deg, "scale_arcsec": options.scale_arcsec}
            records.append({"stars": columns, "hint": hint, "pixel_aspect": 1.0, "trailed": found["trailed"]})
            transforms.append(None if foreign else made.transform(state))

        def reader(k, made=made):
            return lambda: np.repeat(np.repeat(scan.binned(made.light(k)[0].astype(np.float32)), 2, 0), 2, 1)

        frames = [cascade.Frame(record, 30.0 * k, reader(k)) for k, record in enumerate(records)]
        fixed = cascade.arrays(records[0]["stars"])
        shape = (options.height_px, options.width_px)
        lattice = {
            "stars": records[0]["stars"],
            "shape": shape,
            "hint": records[0]["hint"],
            "aspect": 1.0,
            "read": reader(0),
        }
        results = cascade.register(frames, [("reference", fixed)], lattice, shape, **LIMITS)["results"]
        h, w = shape
        corners = np.array([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], float)
        back = geometry.inverse(transforms[0])
        errors = []
        for result, transform in zip(results, transforms, strict=True):
            if transform is not None and "transform" in result:
                gap = geometry.apply(geometry.compose(back, transform), corners) - geometry.apply(
                    result["transform"], corners
                )
                errors.append(np.sqrt((gap**2).sum(1).mean()))
        count = [
            sum(r["method"] == m for r in results)
            for m in ("triangles", "trails", "pairs", "plate", "predicted", "none")
        ]
        print(f"| {name} | {' | '.join(map(str, count))} | {np.median(errors):.3f} | {max(errors):.2f} |", flush=True)


def tasks_of(options):
    """The image of a simulated light, and what is timed on it: name -> callable."""
    made = series.Series(options)
    image = made.light(0)[0].astype(np.float32)
    cell = np.array([[1, 0], [2, 1]]) if options.pattern else np.zeros((2, 2), np.int64)
    noise = stars.sky_noise(image, options.pattern)[1]
    found = stars.find(image, options.pattern, sigma=4, max_stars=250, saturation=64000)
    fixed = {key: found[key] for key in ("x", "y", "position_error", "flux")}
    planes = prewarp.demosaic(image, cell) if options.pattern else image[None]
    near = np.zeros(image.shape, np.uint8)
    box = (0, 0, *image.shape)
    return image, {
        "detection and star fits": lambda: stars.find(image, options.pattern, sigma=4, max_stars=250, saturation=64000),
        "defective pixels": lambda: detection.defects(image, cell, noise, 6.0),
        "matching (250 stars)": lambda: ours(fixed, fixed),
        "Lanczos-3, rotated": lambda: warp.warp(
            planes, cell, 1, np.zeros((len(planes), 2), int), near, turned(1.0), box
        ),
        "Lanczos-3, shifted": lambda: warp.warp(
            planes, cell, 1, np.zeros((len(planes), 2), int), near, turned(0.0), box
        ),
    }


def speed_table():
    """CPU seconds a frame on one thread."""
    numba.set_num_threads(1)
    print("| CPU s a frame | 2 MP colour | 24 MP mono |")
    print("|---|---|---|")
    rows = {}
    for options in (
        Options(n_frames=2, height_px=1080, width_px=1920, seed=5),
        Options(n_frames=2, height_px=4000, width_px=6000, seed=5, pattern=None),
    ):
        image, tasks = tasks_of(options)
        for name, task in tasks.items():
            task()
            start = time.process_time()
            for _ in range(3):
                task()
            spent = (time.process_time() - start) / 3
            rate = f" ({image.size / spent / 1e6:.0f} MP/s)" if "Lanczos" in name else ""
            rows.setdefault(name, []).append(f"{spent:.3f}{rate}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(values)} |")


if __name__ == "__main__":
    night.LATITUDE_DEG = 48.0
    for table in (star_list_table, frame_table, speed_table):
        table()
        print()
