"""The acceptance tests T0-T11: what is measured, the goal, and a planted fault that each must catch."""

import dataclasses
from pathlib import Path

import numpy as np
import sep
from case import PLAIN, Case
from efficiency import injection, measure

from simulation import series
from tilestack import (
    bayer,
    drizzling,
    fields,
    files,
    geometry,
    lattice,
    prewarped,
    rawpixels,
    reconstruction,
    records,
    robust,
    template,
)
from tilestack.kernels import coadd, drizzle, warp

# The rms of the simulator's seeing and transparency over the option that scales them (simulation.night).
SEEING, HAZE = 0.857, 0.906
BORDER_PX = 180
# Goals of drizzled colours at FWHM 2.7 px: an output pixel of 1 px alone costs 6 %.
COLOUR_PT, COLOUR_SB = 0.92, 0.96
# From the faint known stars to the bright ones.
MAGNITUDES = 2.5 * np.log10(injection.BRIGHT_SNR / injection.STAR_SNR)


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure beside its goal, and whether the planted fault was caught (None: none planted)."""

    test: str
    name: str
    value: float
    error: float
    goal: str
    ok: bool
    caught: bool | None = None
    low: float = -np.inf
    high: float = np.inf


def within(test, name, value, error, low, high, fault=None):
    """A row whose value must lie between two goals, as far as its error tells; the faulty value must not."""
    goal = (
        f"{low:g}-{high:g}"
        if np.isfinite(low) and np.isfinite(high)
        else f">= {low:g}"
        if np.isfinite(low)
        else f"<= {high:g}"
    )
    caught = None if fault is None else not low <= fault <= high
    row = Row(test, name, float(value), float(error), goal, True, caught, low, high)
    return judged(row, row.value, row.error, caught)


def judged(row, value, error, caught):
    """The row with another value: reached where the goal lies not more than two errors away."""
    ok = bool(row.low - 2 * error <= value <= row.high + 2 * error)
    return dataclasses.replace(row, value=value, error=error, ok=ok, caught=caught)


def settled(row):
    """Whether the goal is reached by so much that the error is at most a third of it."""
    return min(row.value - row.low, row.high - row.value) >= 3 * row.error


def at_least(test, name, value, error, goal, fault=None):
    return within(test, name, value, error, goal, np.inf, fault)


def at_most(test, name, value, error, goal, fault=None):
    return within(test, name, value, error, -np.inf, goal, fault)


def spreads(seeing, haze, sky, **others):
    """Options of a night with so much spread of FWHM, transparency and sky over its frames."""
    return {"fwhm_spread": seeing / SEEING, "transparency_spread": haze / HAZE, "sky_spread": sky, **others}


def permuted(session, made):
    """Planted fault: each frame gets another's weight."""
    order = np.random.default_rng(5).permutation(len(made["WEIGHT"]))
    made["WEIGHT"][:] = made["WEIGHT"][order]


def noisy_weights(rms):
    def change(session, made):
        rng = np.random.default_rng(6)
        made["WEIGHT"] *= np.exp(rms * rng.normal(size=(len(made["WEIGHT"]), 1, 1, 1))).astype(np.float32)

    return change


def typical(case, test, goal_pt, goal_sb, fault):
    """eta_pt and eta_sb of a case against goals, with a fault planted in its weights."""
    found = case.efficiencies()
    broken = case.faulty(case.efficiencies, changed=fault)
    own, ideal = case.efficiencies(case.base, case.injected), case.efficiencies(*case.ideal)
    lost, error = paired(own, ideal, "eta_sb")
    if case.colour is not None:
        # Against the ceiling itself: what uneven drops cost, the stack of the true weights loses too.
        sb = found["eta_sb"], found["eta_sb_error"], min(goal_sb, COLOUR_SB), broken and broken["eta_sb"]
        pt = found["eta_pt"], found["eta_pt_error"], min(goal_pt, COLOUR_PT), broken and broken["eta_pt"]
        ratio = Row(test, "eta_sb over that of the true weights", 1 + lost, error, "-", True)
        return [at_least(test, "eta_pt", *pt), at_least(test, "eta_sb", *sb), ratio]
    return [
        at_least(test, "eta_pt", found["eta_pt"], found["eta_pt_error"], goal_pt, broken and broken["eta_pt"]),
        at_least(test, "eta_sb", 1 + lost, error, goal_sb, broken and broken["eta_sb"] / ideal["eta_sb"]),
        Row(test, "eta_sb of the true weights", ideal["eta_sb"], ideal["eta_sb_error"], "-", True),
    ]


def t0(folder, size, seed):
    """Equal frames: nothing is lost, and rejection takes no good pixels."""
    case = Case(folder, [dataclasses.replace(PLAIN, **size, seed=seed)])
    rows = typical(case, "T0", 0.98, 0.98, noisy_weights(0.3))
    kept, _ = case.again(options={"reject": False})
    difference = (case.base["SCI"] - kept["SCI"])[case.blank] / np.sqrt(kept["VAR"][case.blank])
    error = difference.std() / np.sqrt(difference.size)
    # Fault: outliers on one side only, as a clipping at 2 sigma of a skewed noise would leave.
    one_sided = np.where(np.abs(kept["SPLIT"]) > 2.5 * np.sqrt(kept["VAR"]), 0.5, 0.0)[case.blank].mean()
    rows.append(
        at_most(
            "T0", "bias of rejection, sigma", abs(difference.mean()), error, 0.005, abs(difference.mean()) + one_sided
        )
    )
    return rows


def t1(folder, size, seed):
    """A typical night, and what follows from the same frames: T6 sharp, T8 profile, T9 photometry, T11 variance."""
    case = typical_night(folder, size, seed)
    rows = typical(case, "T1", 0.96, 0.96, permuted)
    best = case.best_direct_coadd()
    found = case.efficiencies()
    rows.append(
        at_least("T1", "eta_pt over the best direct coadd", found["eta_pt"] / best, found["eta_pt_error"], 0.99)
    )
    own = case.efficiencies(case.base, case.injected)  # of the same noise as the other
    lost, error = paired(own, case.efficiencies(*case.best_direct), "eta_pt")
    rows.append(at_least("T1", "eta_pt over that of the best direct coadd, measured", 1 + lost, error, 0.99))
    return [*rows, *sharp(case), *profile(case), *photometry(case), *frames_right(case), *variance(case)]


def typical_night(folder, size, seed):
    return Case(folder, [dataclasses.replace(PLAIN, **size, **spreads(0.15, 0.08, 0.15), seed=seed)])


def t9(folder, size, seed):
    """Photometry and variance alone."""
    case = typical_night(folder, size, seed)
    return [*photometry(case), *variance(case)]


def t2(folder, size, seed):
    night = spreads(0.20, 0.10, 0.30, thick_cloud_share=0.2, thick_cloud_least=0.3, thick_cloud_most=0.9)
    case = Case(folder, [dataclasses.replace(PLAIN, **size, **night, seed=seed)])
    return typical(case, "T2", 0.94, 0.94, permuted)


def t3(folder, size, seed):
    night = spreads(0.25, 0.15, 0.50, thick_cloud_share=0.1, thick_cloud_least=0.3, thick_cloud_most=0.9)
    n = -(-size["n_frames"] // 3)
    sessions = [dataclasses.replace(PLAIN, **{**size, "n_frames": n}, **night, seed=3 * seed + k) for k in range(3)]
    case = Case(folder, sessions)
    # Frames far sharper than the template: they too keep the cores of bright stars.
    slope, error = fwhm_slope(case, (case.base, case.injected))
    return [*typical(case, "T3", 0.92, 0.92, permuted), at_most("T3", "FWHM slope, per mag", slope, error, 0.001)]


def flat(case):
    """Planted fault, and what local weights are compared with: one weight, scale and FWHM a frame."""
    return lambda session, made: made.update(remade(case, session, local=False))


def remade(case, session, objective="balanced", local=True):
    """Fields of a session for another objective, or without what its tiles say."""
    run = case.run
    normalized = run.record(f"work/normalization/{session}.json")
    whole_of = {f["file"]: f for f in run.record(f"work/global/{session}.json")["frames"]}
    fit_of = {f["file"]: f for f in normalized["frames"]}
    names = [f["file"] for f in run.record(f"work/weights/{session}.json")["frames"]]
    paths = [run.folder / f"work/local/{session}/{batch}.fits" for batch in run.batches(session)]
    joined = fields.Measured(paths)
    with files.opened(paths[0]) as hdus:
        measured = {hdu.name: joined[hdu.name] for hdu in hdus[1:]}
    if not local:
        for name in ("LN_T", "LN_FWHM", "STRUCTURE"):
            measured[name][:] = np.nan
        typical_noise = records.array([whole_of[name]["noise_adu"] for name in names])
        measured["NOISE"][:] = typical_noise[:, :, None, None]
    made, _ = fields.make(
        measured,
        joined.tiles,
        joined.grid["STRIDEPX"],
        [whole_of[name] for name in names],
        [fit_of[name] for name in names],
        normalized["reference_sky"],
        objective=objective,
        quality_model="physical",
        profile="strict",
    )
    return made


def t4(folder, size, seed):
    """A quadrant whose transparency changes: local weights gain there what they can, and fluxes are right."""
    case = Case(folder, [dataclasses.replace(PLAIN, **size, quadrant_spread=0.2, seed=seed)])
    field = case.known.field
    # Local scales are means over some 120 px: at the border of the quadrant they cannot be right.

    def there(places):
        return (places < -BORDER_PX).all(1)

    def elsewhere(places):
        return (places > BORDER_PX).any(1)

    global_base, global_injected = case.again(changed=flat(case))

    def gains(region):
        local = case.efficiencies(case.base, case.injected, region)  # of the same noise as the other
        return paired(local, case.efficiencies(global_base, global_injected, region), "eta_pt")

    states = [case.known.state(case.first, f["file"]) for f in case.run.frames(case.first)]
    tau2 = np.var([np.log(state["quadrant"]) for state in states])
    (gain, error), (its_gain, its_error) = gains(there), gains(elsewhere)
    ratio, spread = flux_ratio(case, case.injected, case.base)
    stars = there(field) & (case.known.kind == injection.STAR) & np.isfinite(ratio)
    centre = np.nanmedian(ratio[elsewhere(field) & (case.known.kind == injection.STAR)])
    bias = np.nanmedian(ratio[stars]) / centre - 1
    whole_ratio, _ = flux_ratio(case, global_injected, global_base)
    return [
        at_least("T4", "gain there over tau^2", gain / tau2, error / tau2, 0.8, 0.0),
        at_least("T4", "gain elsewhere", its_gain, its_error, -0.003),
        at_most("T4", "flux bias there", abs(bias), spread / np.sqrt(stars.sum()), 0.005),
        Row(
            "T4",
            "flux bias there with one scale a frame",
            float(np.nanmedian(whole_ratio[stars]) / centre - 1),
            0.0,
            "-",
            True,
        ),
    ]


def paired(one, other, name):
    """Ratio less 1 of an efficiency in two stacks that share their noise, and its error."""
    parts = one[f"{name}_parts"] / other[f"{name}_parts"]
    return one[name] / other[name] - 1, measure.jackknife(parts)


def t5(folder, size, seed):
    """Nothing local to gain: local weights lose nothing."""
    case = typical_night(folder, size, seed)
    whole = case.efficiencies(*case.again(changed=flat(case)))
    found = case.efficiencies(case.base, case.injected)  # of the same noise as the other

    def shaken(session, made):
        rng = np.random.default_rng(7)
        made["WEIGHT"] *= np.exp(0.4 * rng.normal(size=made["WEIGHT"].shape)).astype(np.float32)

    broken = case.faulty(case.efficiencies, changed=shaken)
    return [
        at_least(
            "T5",
            f"local over global less 1, {name}",
            *paired(found, whole, name),
            -0.003,
            broken and paired(broken, whole, name)[0],
        )
        for name in ("eta_pt", "eta_sb")
    ]


def sharp(case):
    """T6: sharp weights against the curve, and against keeping the best frames only."""

    def use(objective):
        return lambda session, made: made.update(remade(case, session, objective))

    sharpest = case.again(changed=use("sharp"))
    eta = case.efficiencies(*sharpest)
    depth = case.again(changed=use("depth"))
    eta_depth = case.efficiencies(*depth)
    widths, by_depth, by_sharp = [], [], []
    for session in case.run.sessions:
        widths += [case.truth(session, f["file"])[1] for f in case.run.frames(session)]
        by_depth += list(remade(case, session, "depth")["WEIGHT"].mean((1, 2, 3)))
        by_sharp += list(remade(case, session, "sharp")["WEIGHT"].mean((1, 2, 3)))
    # In the curve's own terms: the mean of ln FWHM by weight, and its spread, from the true FWHM of the frames.
    x = np.log(widths)
    s = np.sqrt(np.average((x - np.average(x, weights=by_depth)) ** 2, weights=by_depth))
    g = np.average(x, weights=by_depth) - np.average(x, weights=by_sharp)
    curve = np.exp(-(g**2) / s**2)
    # The same sharpness by leaving out frames: the share of the best ones whose stack is as sharp.
    best = np.sort(x)
    shares = [kept / len(x) for kept in range(len(x), 2, -1) if best[:kept].mean() <= x.mean() - g]
    broken = case.faulty(
        case.efficiencies, changed=lambda session, made: (use("sharp")(session, made), permuted(session, made))
    )
    lost, error = paired(eta, eta_depth, "eta_sb")
    ratio = 1 + lost
    rows = [
        at_least(
            "T6",
            f"eta_sb at ln FWHM gain {g:.3f} over the curve",
            ratio / curve,
            error / curve,
            1.0,
            broken and broken["eta_sb"] / eta_depth["eta_sb"] / curve,
        ),
    ]
    if shares:
        rows.append(
            at_least("T6", "eta_sb over that of best frames as sharp", ratio / shares[0], error / shares[0], 1.0)
        )
    return rows


def mean_response(case, pair, kind, chosen=True):
    """Mean of the response around known stars of a kind, resampled to their centres: (33, 33)."""
    base, injected = pair
    response = np.nan_to_num(injected["SCI"] - base["SCI"]).astype(np.float32)
    mine = (case.known.kind == kind) & case.surroundings_full() & chosen
    total = np.zeros((33, 33))
    for x, y in case.xy[mine]:
        to_frame = np.array([[1.0, 0.0, x - 16.0], [0.0, 1.0, y - 16.0]])
        top, left = int(y) - 22, int(x) - 22
        cut = np.ascontiguousarray(response[top : top + 46, left : left + 46])
        to_frame[:, 2] -= [left, top]
        near = np.zeros(cut.shape, np.uint8)
        part, _ = warp.warp(
            cut[None], np.zeros((2, 2), np.int64), 1, np.zeros((1, 2), np.int64), near, to_frame, (0, 0, 33, 33)
        )
        total += part
    return total / mine.sum()


def fwhm_with_error(case, pair, kind, against, chosen=True, groups=8):
    """FWHM of the mean response over that of the same places in another stack of the frames, and its relative error.

    Drops fall in both alike: of a few hundred stars in red, how they fall moves the FWHM by 0.2 %. The error is the
    scatter over groups of stars.
    """
    chosen = chosen & (case.known.kind == kind) & case.surroundings_full()

    def relative(mine):
        own, other = (fwhm_of(mean_response(case, of, kind, mine)) for of in (pair, against))
        return own / other

    index = np.cumsum(chosen) % groups
    parts = [relative(chosen & (index == k)) for k in range(groups)]
    return relative(chosen), np.std(parts) / np.mean(parts) / np.sqrt(groups)


def fwhm_slope(case, pair):
    """Change of ln FWHM with a magnitude of brightness, and its error; over that of the true weights with nothing
    rejected, a stack that does not know how bright a star is."""
    (faint, faint_error), (bright, bright_error) = (
        fwhm_with_error(case, pair, kind, case.ideal) for kind in (injection.STAR, injection.BRIGHT)
    )
    return abs(np.log(bright / faint)) / MAGNITUDES, np.hypot(bright_error, faint_error) / MAGNITUDES


def fwhm_of(image):
    """FWHM by where the azimuthal profile falls to half of its peak."""
    y, x = np.indices(image.shape)
    radius = np.hypot(y - 16, x - 16).ravel()
    values = image.ravel() / image[16, 16]
    order = np.argsort(radius)
    near = order[radius[order] < 4]
    coefficients = np.polyfit(radius[near] ** 2, np.log(np.maximum(values[near], 1e-6)), 4)
    grid = np.linspace(0.2, 4, 4000)
    return 2 * grid[np.argmin(np.abs(np.polyval(coefficients, grid**2) - np.polyval(coefficients, 0) - np.log(0.5)))]


def profile(case):
    """T8: the profile of stars depends neither on their brightness nor on where the tiles lie."""
    pair = case.base, case.injected
    slope, slope_error = fwhm_slope(case, pair)
    stride = case.run.record("artifacts/tile_grid.json")["stride_px"]
    offset = np.abs((case.known.xy + 0.5) % stride - stride / 2).max(1) / stride  # 0 in the middle, 1/2 on the edge
    (on, on_error), (off, off_error) = (
        fwhm_with_error(case, pair, injection.STAR, case.plain_mean, chosen) for chosen in (offset > 0.4, offset < 0.3)
    )
    broken = case.faulty(
        lambda *pair: fwhm_slope(case, pair)[0],
        options={"range_tolerance": 0.0, "signal_tolerance": 0.0, "seeing_tolerance": 0.0, "kappa": 2.5},
    )
    return [
        at_most(
            "T8",
            "FWHM slope, per mag",
            slope,
            slope_error,
            0.001,
            broken,
        ),
        at_most("T8", "FWHM on over off tile edges, less 1", abs(on / off - 1), np.hypot(on_error, off_error), 0.003),
    ]


def flux_ratio(case, injected, base):
    """Response in an aperture over what its frames hold there: (n,), NaN near rims; and the scatter of one star."""
    response = np.ascontiguousarray(np.nan_to_num(injected["SCI"] - base["SCI"]), np.float32)
    flux, _, _ = sep.sum_circle(response, *case.xy.T.copy(), 10.0, subpix=5)
    expected = _expected_flux(case)
    stars = case.known.kind != injection.PATCH
    ratio = np.where(stars & case.surroundings_full(), flux / expected, np.nan)
    return ratio, 1.4826 * np.nanmedian(np.abs(ratio - np.nanmedian(ratio)))


def _expected_flux(case):
    """Flux in the aperture, mean over frames by weight, each as the reference frame would see it; of colours that of
    the star."""
    if case.colour is not None:
        return case.known.flux[:, case.colour]
    total, weight = np.zeros(len(case.xy)), np.zeros(len(case.xy))
    stride = case.run.record("artifacts/tile_grid.json")["stride_px"]
    t0, _ = case.truth(case.first, case.reference)
    for session in case.run.sessions:
        with files.opened(case.run.folder / f"work/weights/{session}.fits") as hdus:
            first = hdus[0].header["TILEX0"], hdus[0].header["TILEY0"]
            at_x, at_y = ((case.known.xy[:, k] + 0.5) / stride - 0.5 - first[k] for k in (0, 1))
            weights = lattice.bilinear(np.asarray(files.pixels(hdus["WEIGHT"]), float).mean(1), at_y, at_x)
        made = case.made[session]
        for k, frame in enumerate(case.run.frames(session)):
            light = case.known.draw(session, frame, made.dark.shape)
            transform = case.known.transform(session, frame)
            at = geometry.apply(geometry.inverse(transform), case.known.xy)
            state = case.known.state(session, frame["file"])
            through = made.through(state)
            x, y = np.clip(np.round(at).astype(int), 0, np.array(through.shape)[::-1] - 1).T
            flux, _, _ = sep.sum_circle(light, *at.T.copy(), 10.0, subpix=5)
            total += weights[k] * flux / through[y, x] * t0 * geometry.area_scale(transform)
            weight += weights[k]
    return total / weight


def photometry(case):
    """T9: fluxes are right anywhere, whatever the place in a tile; and in rims that part of the frames cover."""
    ratio, _ = flux_ratio(case, case.injected, case.base)
    scale = np.nanmedian(ratio)  # the reference frame's own scale has an error, once for all
    ratio = ratio / scale
    stars = np.isfinite(ratio) & (case.known.kind == injection.STAR)
    h, w = case.base["SCI"].shape
    corner = (case.xy[:, 0] < w / 2).astype(int) + 2 * (case.xy[:, 1] < h / 2)
    stride = case.run.record("artifacts/tile_grid.json")["stride_px"]
    offset = np.abs((case.known.xy + 0.5) % stride - stride / 2).max(1) / stride
    groups = [stars & (corner == k) for k in range(4)]
    worst = max(abs(np.median(ratio[group]) - 1) for group in groups)
    by_phase = abs(np.median(ratio[stars & (offset > 0.4)]) - np.median(ratio[stars & (offset < 0.3)]))
    # Of medians; and of these stars alone, as brighter ones scatter less.
    error = max(1.25 * robust.spread(ratio[group]) / np.sqrt(group.sum()) for group in groups)

    def brighter(session, made):
        ny, nx = made["SCALE"].shape[2:]
        made["SCALE"][:, :, : ny // 2, : nx // 2] *= 1.02

    def worst_quarter(base, injected):
        broken, _ = flux_ratio(case, injected, base)
        broken = broken / np.nanmedian(broken)
        return max(abs(np.median(broken[group]) - 1) for group in groups)

    fault = case.faulty(worst_quarter, changed=brighter)
    return [
        at_most("T9", "flux bias in a quarter of the field", worst, error, 0.005, fault),
        at_most("T9", "flux by place in the tile", by_phase, error, 0.005),
        *rims(case),
    ]


def frames_right(case):
    """Scale and place of each frame against the truth; planted: one t scaled by 2 %, one frame shifted by 0.3 px."""
    t, shifts = [], []
    y, x = np.mgrid[0.1:1:5j, 0.1:1:5j]
    for session, made in case.made.items():
        h, w = made.dark.shape
        points = np.column_stack([x.ravel() * w, y.ravel() * h])
        fits = {f["file"]: f for f in case.run.record(f"work/normalization/{session}.json")["frames"]}
        for frame in case.run.frames(session):
            t.append(np.mean(fits[frame["file"]]["scale"]) / case.truth(session, frame["file"])[0])
            true = geometry.apply(case.to_lattice(frame["file"], session), points)
            shifts.append((geometry.apply(np.array(frame["transform"]), points) - true).mean(0))
    error, shifts = np.array(t) / np.median(t) - 1, np.array(shifts) - np.median(shifts, axis=0)
    scaled, moved = error.copy(), shifts.copy()
    scaled[3] += 0.02
    moved[3, 0] += 0.3
    return [
        at_most("T9", f"worst {name}", np.abs(good).max(), 0.0, goal, np.abs(fault).max())
        for name, good, fault, goal in (
            ("error of a frame's scale", error, scaled, 0.015),
            ("shift of a frame, px", shifts, moved, 0.1),
        )
    ]


def rims(case):
    """Pixels that part of the frames cover: the sky is the same there as inside, within the noise."""
    seen = case.seen
    known = np.isfinite(case.base["SCI"])
    background = sep.Background(
        np.ascontiguousarray(np.where(known, case.base["SCI"], 0), np.float32), mask=~known, bw=128, bh=128
    )
    flat_sky = (case.base["SCI"] - background.back()) / np.sqrt(case.base["VAR"])
    rim = known & (seen < seen.max()) & (seen >= 3) & (np.abs(flat_sky) < 5)
    y, x = np.nonzero(rim)
    block = (y * 8 // rim.shape[0]) * 8 + x * 8 // rim.shape[1]
    parts = np.array([flat_sky[rim][block == k].mean() for k in np.unique(block)])
    mean, error = flat_sky[rim].mean(), parts.std() / np.sqrt(len(parts))
    return [at_most("T9", "sky of rim pixels, sigma of a pixel", abs(mean), error, 0.1)]


def variance(case):
    """T11: the variance plane is what the halves say."""
    chi2 = measure.split_chi2(case.base, case.blank)
    error = chi2.std() / np.sqrt(len(chi2))

    def wrong(session, made):
        made["VARIANCE"] *= 1.1

    fault = case.faulty(lambda base, _: measure.split_chi2(base, case.blank).mean(), changed=wrong)
    return [within("T11", "chi^2 of half-splits", chi2.mean(), error, 0.97, 1.03, fault)]


def t7(folder, size, seed):
    """Trails, cosmic rays and hot pixels are masked, good pixels are not, and stars keep their flux."""
    night = spreads(0.20, 0.08, 0.15, trail_share=0.6, hot_share=4e-4, cosmic_share=5e-6)
    case = Case(folder, [dataclasses.replace(PLAIN, **size, **night, seed=seed)])
    marks = marks_of if case.colour is None else raw_marks_of
    masked, lost = contamination(case, marks(case))
    missed = contamination(case, marks(case, options={"reject": False}))[0][0] if case.plants else None
    n = size["n_frames"]
    two = [
        dataclasses.replace(
            PLAIN, **{**size, "n_frames": n // 2, "fwhm_px": width}, **spreads(0.10, 0.05, 0.1), seed=seed + k
        )
        for k, width in enumerate((2.5, 4.0))
    ]
    other = Case(f"{folder}_two", two)
    rows = [
        at_least("T7", "contaminated pixels masked", masked[0], masked[1], 0.99, missed),
        at_most("T7", "good pixels lost", lost[0], lost[1], 0.0006),
    ]
    for name, which in (("20 % seeing", case), ("FWHM 2.5 and 4.0 px", other)):
        kept, kept_injected = which.again(options={"reject": False})
        for kind, label in ((injection.STAR, "faint"), (injection.BRIGHT, "bright")):
            stars = (which.known.kind == kind) & which.surroundings_full()
            one, two_ = (
                _aperture(which, injected, base)[stars]
                for injected, base in ((which.injected, which.base), (kept_injected, kept))
            )
            bias = np.mean(one / two_) - 1
            error = np.std(one / two_) / np.sqrt(stars.sum())
            rows.append(at_most("T7", f"flux bias of {label} stars by rejection, {name}", abs(bias), error, 0.003))
    return rows


def _aperture(case, injected, base):
    response = np.ascontiguousarray(np.nan_to_num(injected["SCI"] - base["SCI"]), np.float32)
    return sep.sum_circle(response, *case.xy.T.copy(), 6.0, subpix=5)[0]


def batches_of(case, options):
    """What tells the marks of a batch of the first session: record, fields, tiles, stride, template, settings."""
    run, session = case.run, case.first
    settings = {**run.config["tile_reconstruction"], **(options or {})}
    normalized = run.record(f"work/normalization/{session}.json")
    layer = run.record(f"work/template/{session}.json")
    weights = run.record(f"work/weights/{session}.json")
    gain = normalized["gain"]["e_per_adu"]
    settings["inverse_gain"] = 1 / gain if gain else 0.0
    place = {f["file"]: k for k, f in enumerate(weights["frames"])}
    for batch in run.batches(session):
        record = run.record(f"work/prewarp/{session}/{batch}.json")
        with files.opened(run.folder / f"work/weights/{session}.fits") as hdus:
            mine = [place[entry["file"]] for entry in record["frames"]]
            made = np.stack([files.native(files.pixels(hdus[name])[mine]) for name in coadd.FIELDS], axis=1)
        sky_template = {
            "reference_sky": normalized["reference_sky"],
            **{key: layer[key] for key in ("sky", "mesh_origin")},
        }
        stride = run.record("artifacts/tile_grid.json")["stride_px"]
        tiles = (*weights["tiles"]["first"], *weights["tiles"]["shape"])
        yield batch, record, (made, tiles, stride, sky_template, settings)


def marks_of(case, options=None):
    """Marks of all frames of the first session: list of (entry, (h, w) uint8 on the box of the frame)."""
    run, session, result = case.run, case.first, []
    for batch, record, (made, tiles, stride, sky_template, settings) in batches_of(case, options):
        sky_template["layers"] = [run.folder / f"work/template/{session}.fits"]
        work = reconstruction.Batch(record, made, tiles, stride, None, sky_template, settings)
        path = run.folder / f"work/prewarp/{session}/{batch}.fits"
        pixels = prewarped.Frames([(path, record["frames"])])
        starts, y, x, _ = work.outliers(pixels, prewarped.bands(work.box, 128))
        for k, entry in enumerate(record["frames"]):
            y0, x0, rows, columns = entry["box"]
            own = slice(starts[k], starts[k + 1])
            marks = coadd.painted(
                pixels.rows(k, entry["box"])[None],
                y0 - work.box[0],
                np.array([0, own.stop - own.start]),
                y[own],
                x[own] + work.box[1] - x0,
                settings["grow_px"],
            )
            result.append((entry, marks[0]))
    return result


def raw_marks_of(case, options=None):
    """Marks of the raw frames of the first session, of the pixels of the case's colour: list of (entry, (h, w))."""
    run, session, result = case.run, case.first, []
    registered = run.record(f"work/registration/{session}.json")
    folder = Path(run.sessions[session]["folder"])
    mine = np.tile(bayer.channel_cell(registered["bayer_pattern"]) == case.colour, np.array(registered["shape"]) // 2)
    layers = template.Layers([run.folder / f"work/template_rgb/{session}.fits"])
    for _, record, (made, tiles, stride, sky_template, settings) in batches_of(case, options):
        entries = record["frames"]
        raw = rawpixels.Raw([folder / entry["file"] for entry in entries], registered, cosmetic=True)
        sky_template |= {"planes": layers, "mesh_px": record["mesh_px"]}
        work = drizzling.Batch(raw, entries, registered, made, tiles, stride, sky_template, settings)
        found = work.outliers()
        for k, entry in enumerate(entries):
            image, marks = np.empty(raw.shape, np.float32), np.empty(raw.shape, np.uint8)
            raw.read(k, (0, raw.shape[0]), (0, raw.shape[1]), image, marks)
            y, x = np.divmod(found[k], raw.shape[1])
            marks[y, x] = np.where(marks[y, x] == drizzle.KEPT, drizzle.REJECTED, marks[y, x])
            marks[~mine] = drizzle.MISSING
            result.append((entry, marks))
    return result


def contamination(case, marks):
    """Shares with their errors: pixels of contamination above 7 sigma that are masked, good pixels that are lost."""
    made = case.made[case.first]
    hits = bad = lost = good = 0
    for entry, mark in marks:
        foreign, noise = foreign_light(case, made, entry)
        strong = (foreign > 7 * noise) & (mark != coadd.MISSING) & case_far_from_stars(case, entry)
        bad += strong.sum()
        hits += (strong & (mark != coadd.KEPT)).sum()
        near = _grown(foreign > 0.1 * noise, 3)
        clean = ~near & (mark != coadd.MISSING) & (mark != coadd.CLIPPED)
        good += clean.sum()
        lost += (clean & (mark == coadd.REJECTED)).sum()
    share, loss = hits / max(bad, 1), lost / max(good, 1)
    return (share, np.sqrt(share * (1 - share) / max(bad, 1))), (loss, np.sqrt(loss / max(good, 1)))


def foreign_light(case, made, entry):
    """Trails and cosmic rays of a frame without noise, on its box of the lattice, and the noise of a pixel; ADU."""
    o = made.options
    k = series.number(entry["file"])
    state = case.known.state(case.first, entry["file"])
    light = np.zeros(made.dark.shape) + made.trails(state)
    light += series.cosmics(o, k, state)
    raw = np.ascontiguousarray(light / o.gain_e_adu, np.float32)
    if case.colour is not None:
        return raw, np.nanmedian(np.array(entry["noise"], float)[case.colour])
    to_frame = geometry.inverse(np.array(entry["transform"]))
    near = np.zeros(raw.shape, np.uint8)
    foreign, _ = warp.warp(
        raw[None], np.zeros((2, 2), np.int64), 1, np.zeros((1, 2), np.int64), near, to_frame, entry["box"]
    )
    noise = np.nanmedian(np.array(entry["pixel_noise"], float))
    return np.nan_to_num(foreign), noise


def case_far_from_stars(case, entry):
    """Pixels of a frame's box that are not in the core of a star: light below 5 sigma of a frame; of colours those of
    the raw frame."""
    if case.colour is not None:
        made, state = case.made[case.first], case.known.state(case.first, entry["file"])
        light = made.added(state, made.stars) / made.options.gain_e_adu
        return light < 5 * np.nanmedian(np.array(entry["noise"], float)[case.colour])
    y0, x0, rows, columns = entry["box"]
    full = np.zeros((rows, columns), bool)
    top, left = y0 - case.canvas[0], x0 - case.canvas[1]
    stack = case.base["SCI"][top : top + rows, left : left + columns]
    level = np.nanmedian(stack)
    noise = np.nanmedian(np.array(entry["pixel_noise"], float))
    full[:] = np.nan_to_num(stack - level) < 5 * noise
    return full


def _grown(mask, reach):
    grown = mask.copy()
    for _ in range(reach):
        padded = np.pad(grown, 1)
        grown = (padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]) | (
            padded[:-2, :-2] | padded[2:, 2:] | padded[:-2, 2:] | padded[2:, :-2]
        )
    return grown


def t10(folder, size, seed):
    """No lattice of the tiles in the stack, under strong moving gradients and clouds."""
    night = spreads(0.15, 0.08, 0.15, gradient=0.6, cloud_share=0.3)
    case = Case(folder, [dataclasses.replace(PLAIN, **size, **night, seed=seed)])
    stride = case.run.record("artifacts/tile_grid.json")["stride_px"]
    clean = np.where(case.blank, case.base["SCI"], np.nan)
    deviation = np.sqrt(case.base["VAR"])
    ratio, error = lattice_power(clean / deviation, stride)
    # The plain mean of the same pixels knows no tiles: what it shows there is the sky's.
    plain, _ = lattice_power(np.where(case.blank, case.base["MEAN"], np.nan) / deviation, stride)
    y, x = np.indices(clean.shape)
    planted = 0.1 * np.sign(np.sin(2 * np.pi * x / stride) * np.sin(2 * np.pi * y / stride))
    planted += 0.1 * np.sign(np.sin(2 * np.pi * x / stride))
    fault, _ = lattice_power(clean / deviation + planted, stride)
    return [
        at_most(
            "T10", "power at the tile pitch, over that of the plain mean", ratio / plain, error, 1.1, fault / plain
        ),
        Row(
            "T10",
            "steps between tiles over those elsewhere",
            case.run.record("artifacts/tile_reconstruction.json")["boundary_step"],
            0.0,
            "-",
            True,
        ),
    ]


def lattice_power(image, pitch):
    """Power at the harmonics of a pitch over that of the modes around them, and its error."""
    h, w = (n // pitch * pitch for n in image.shape)
    top, left = ((n - m) // 2 for n, m in zip(image.shape, (h, w), strict=True))
    cut = image[top : top + h, left : left + w]
    known = np.isfinite(cut)
    filled = np.ascontiguousarray(np.where(known, cut, 0), np.float32)
    background = sep.Background(filled, mask=~known, bw=int(1.37 * pitch), bh=int(1.37 * pitch))
    flat_image = np.where(known, np.clip(cut - background.back(), -5, 5), 0.0)
    power = np.abs(np.fft.fft2(flat_image)) ** 2
    fy, fx = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    by, bx = h // pitch, w // pitch  # harmonics lie at multiples of these
    at = (fy % by == 0) & (fx % bx == 0)
    at[0, 0] = False
    near = np.zeros_like(at)
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            if max(abs(dy), abs(dx)) >= 2:
                near |= np.roll(at, (dy, dx), (0, 1))
    near &= ~at
    low = np.hypot(np.minimum(fy, h - fy) / h, np.minimum(fx, w - fx) / w) < 0.35
    ratio = power[at & low].mean() / power[near & low].mean()
    return ratio, np.sqrt(2 / (at & low).sum())


TESTS = {"T0": t0, "T1": t1, "T2": t2, "T3": t3, "T4": t4, "T5": t5, "T7": t7, "T10": t10}
