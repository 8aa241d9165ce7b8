"""The figures of the report: each takes what was read and returns a matplotlib figure, or None without data."""

import datetime

import numpy as np

from tilestack import records
from tilestack.report import depth, drawing, words
from tilestack.report.drawing import BLUE, CHANNELS, GREEN, GRID, INK, MUTED, ORANGE, PURPLE, SERIES, VERMILION


class Frames:
    """Columns over the frames that were used, in the order of the table: nights, then time."""

    def __init__(self, read, rows):
        used = [row for row in rows if row["status"] == "used"]
        self.nights = [row["night"] for row in used]
        order = [(row["night"], row["file"]) for row in used]
        self.tables = {}
        for name in ("global_metrics", "normalization", "registration", "tile_reconstruction", "state_clustering"):
            entries = {(f["session"], f["file"]): f for f in read.get(name, {}).get("frames", ())}
            self.tables[name] = [entries.get(key, {}) for key in order]
        self.rows = used
        self.number = np.arange(1, len(used) + 1)

    def column(self, table, key):
        return records.array([entry.get(key) for entry in self.tables[table]])

    def channels(self, table, key, n):
        """(frames, channels)."""
        return records.array([entry.get(key) or [None] * n for entry in self.tables[table]])

    def of_rows(self, key):
        return records.array([row[key] for row in self.rows])

    def separate(self, ax):
        """Where nights meet, and the label of the axis."""
        for k in range(1, len(self.nights)):
            if self.nights[k] != self.nights[k - 1]:
                ax.axvline(k + 0.5, color=MUTED, linewidth=0.8, linestyle=":")
        ax.set_xlabel("frame, in order of time")
        ax.set_xlim(0.5, len(self.number) + 0.5)


def by_channel(ax, frames, table, key, names):
    values = frames.channels(table, key, len(names))
    for name, column in zip(names, values.T, strict=True):
        colour, marker = CHANNELS.get(name, (BLUE, "o"))
        drawing.points(ax, frames.number, column, colour, marker, name if len(names) > 1 else None)
    if len(names) > 1:
        above(ax, len(names))
    frames.separate(ax)


def above(ax, columns, gap=0.1):
    """A legend beside the title, where no point is."""
    ax.legend(
        ncols=columns,
        loc="lower right",
        bbox_to_anchor=(1.02, 0.98),
        borderaxespad=0,
        handletextpad=gap,
        columnspacing=0.8,
    )


def over_time(ax, frames, values, title, unit, colour=BLUE):
    drawing.points(ax, frames.number, values, colour)
    ax.set_title(title)
    ax.set_ylabel(unit)
    frames.separate(ax)


def histogram(ax, values, title, unit, colour=BLUE):
    known = values[np.isfinite(values)]
    ax.hist(known, bins=min(30, max(8, len(known) // 4)), color=colour, alpha=0.85)
    ax.set_title(title)
    ax.set_xlabel(unit)
    ax.set_ylabel("frames")
    ax.grid(False, axis="x")


def normalization(read, frames, pictures):
    names = read["normalization"]["channels"]
    figure, (sky, scale, gradient, spread) = drawing.canvas(2, 2)
    by_channel(sky, frames, "normalization", "sky_level_adu", names)
    sky.set_title("Sky level")
    sky.set_ylabel("sky (ADU)")
    by_channel(scale, frames, "normalization", "scale", names)
    scale.set_title("Scale")
    scale.set_ylabel("light (reference = 1)")
    by_channel(gradient, frames, "normalization", "gradient_adu", names)
    gradient.set_title("Slope of the sky")
    gradient.set_ylabel("slope (ADU per side)")
    over_time(spread, frames, 100 * frames.column("normalization", "scale_error"), "Error of the scale", "error (%)")
    return figure


def global_metrics(read, frames, pictures):
    names = read["global_metrics"]["channels"]
    figure, (noise, energy, weight, weights) = drawing.canvas(2, 2)
    by_channel(noise, frames, "global_metrics", "noise_adu", names)
    noise.set_title("Noise of a raw pixel")
    noise.set_ylabel("noise (ADU)")
    over_time(
        energy, frames, frames.column("global_metrics", "gradient_energy"), "Gradient energy: detail", "ADU² per px²"
    )
    over_time(weight, frames, frames.of_rows("weight"), "Weight of a frame", "weight (mean = 1)", PURPLE)
    histogram(weights, frames.of_rows("weight"), "Distribution of the weights", "weight (mean = 1)", PURPLE)
    return figure


def star_metrics(read, frames, pictures):
    figure, (fwhm, widths, roundness, stars) = drawing.canvas(2, 2)
    drawing.points(fwhm, frames.number, frames.of_rows("fwhm_px"), BLUE, "o", "FWHM")
    drawing.points(fwhm, frames.number, frames.column("global_metrics", "wfwhm_px"), ORANGE, "s", "wFWHM")
    fwhm.set_title("Width of stars")
    fwhm.set_ylabel("width (px)")
    above(fwhm, 2)
    frames.separate(fwhm)
    histogram(widths, frames.of_rows("fwhm_px"), "Distribution of FWHM", "FWHM (px)")
    over_time(roundness, frames, frames.of_rows("roundness"), "Roundness", "short / long axis", GREEN)
    over_time(stars, frames, frames.of_rows("stars"), "Stars", "stars in a frame", VERMILION)
    return figure


CORRELATIONS = [
    (("fwhm_px", "FWHM (px)"), ("roundness", "roundness")),
    (("fwhm_px", "FWHM (px)"), ("weight", "weight (mean = 1)")),
    (("transparency", "transparency"), ("stars", "stars")),
    (("sky_adu", "sky (ADU)"), ("noise_adu", "noise (ADU)")),
    (("transparency", "transparency"), ("weight", "weight (mean = 1)")),
    (("residual_px", "residual (px)"), ("fwhm_px", "FWHM (px)")),
]


def correlations(read, frames, pictures):
    figure, axes = drawing.canvas(2, 3)
    nights = list(dict.fromkeys(frames.nights))
    for ax, ((x_key, x_label), (y_key, y_label)) in zip(axes, CORRELATIONS, strict=True):
        x, y = frames.of_rows(x_key), frames.of_rows(y_key)
        for k, night in enumerate(nights):
            own = np.array([other == night for other in frames.nights])
            drawing.points(ax, x[own], y[own], SERIES[k % len(SERIES)], "os^Dv"[k % 5], night)
        rank = rank_correlation(x, y)
        text = "" if rank is None else f"rank correlation {rank:+.2f}".replace("-", "\N{MINUS SIGN}")
        ax.set_title(text, fontweight="normal")
        ax.set_xlabel(x_label)
        ax.set_ylabel(y_label)
        ax.locator_params(nbins=5)
    if 1 < len(nights) <= 5:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(nights), handletextpad=0.1)
    return figure


def rank_correlation(x, y):
    """Spearman's; None for fewer than five pairs or no spread."""
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 5 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
        return None
    ranks = [np.unique(values[known], return_inverse=True)[1] for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def registration(read, frames, pictures):
    shifts = records.array([entry.get("shift_px") or [None, None] for entry in frames.tables["registration"]])
    figure, (drift, rotation, residual, matched) = drawing.canvas(2, 2)
    nights = np.array(frames.nights)
    for k, night in enumerate(dict.fromkeys(frames.nights)):
        own = shifts[nights == night]
        colour = SERIES[k % len(SERIES)]
        if len(own) <= drawing.VECTOR_POINTS:
            drift.plot(own[:, 1], own[:, 0], "-", color=colour, linewidth=0.6, alpha=0.6)
        drawing.points(drift, own[:, 1], own[:, 0], colour, "os^Dv"[k % 5], night)
    drift.set_title("Drift and dither")
    drift.set_xlabel("shift in x (px)")
    drift.set_ylabel("shift in y (px)")
    if len(set(frames.nights)) > 1:
        above(drift, min(len(set(frames.nights)), 2))
    over_time(rotation, frames, frames.of_rows("rotation_deg"), "Rotation", "rotation (degrees)", PURPLE)
    over_time(residual, frames, frames.of_rows("residual_px"), "Residual of matched stars", "rms (px)", VERMILION)
    over_time(matched, frames, frames.column("registration", "inliers"), "Matched stars", "stars", GREEN)
    return figure


def tile_maps(read, pictures, table, wanted):
    """Heat maps of tile fields; wanted: (key, title, unit, factor, diverging about)."""
    grid, tiles = read["tile_grid"], read[table]["tiles"]
    (row, column), (rows, columns) = tiles["first"], tiles["shape"]
    (y, x), stride = grid["first_centre_px"], grid["stride_px"]
    left, top = x + (column - 0.5) * stride, y + (row - 0.5) * stride
    extent = (left, left + columns * stride, top + rows * stride, top)
    figure, axes = drawing.canvas(2, 2, height=2 * min(3.3, 2.8 * rows / columns + 0.7))
    for ax, (key, title, unit, factor, about) in zip(axes, wanted, strict=True):
        values = factor * records.array(tiles[key])
        known = values[np.isfinite(values)]
        limits = None
        if len(known):
            limits = tuple(np.percentile(known, [1, 99]))
            if about is not None:
                reach = max(np.percentile(np.abs(known - about), 98), 1e-9)
                limits = (about - reach, about + reach)
        drawing.heat(
            figure,
            ax,
            values,
            title,
            unit,
            extent=extent,
            bottom_up=pictures["bottom_up"],
            limits=limits,
            diverging=about is not None,
        )
    return figure


def tiles(read, frames, pictures):
    wanted = [
        ("mean_frames", "Frames that reach the tile", "frames", 1, None),
        ("fwhm_px", "FWHM of the frames", "px, by weight", 1, None),
        ("split_chi2", "Noise, against expected", "variance, expected = 1", 1, 1.0),
        ("eta_sb", "Efficiency, faint light", "% of the best", 100, None),
    ]
    return tile_maps(read, pictures, "tile_reconstruction", wanted)


def reconstruction(read, frames, pictures):
    wanted = [
        ("effective_frames", "Effective frames", "frames", 1, None),
        ("rejected_share", "Rejected", "% of pixels", 100, None),
        ("predicted_gain", "Gain by local weights", "% of squared S/N, formula", 100, 0.0),
        ("achieved_gain", "The same by the noise of the halves", "% of squared S/N", 100, 0.0),
    ]
    return tile_maps(read, pictures, "tile_reconstruction", wanted)


def clusters(read, frames, pictures):
    record = read.get("state_clustering", {})
    if record.get("status") != "ok":
        return None
    names = [(s["session"], c["id"], c["size"], c["words"]) for s in record["sessions"] for c in s["clusters"]]
    figure, (sizes, course) = drawing.canvas(1, 2, height=max(2.3, 0.28 * len(names) + 0.9))
    place = {(session, number): k for k, (session, number, _, _) in enumerate(names)}
    several = len({session for session, *_ in names}) > 1
    labels = [f"{session} {number}" if several else number for session, number, _, _ in names]
    for ax in (sizes, course):
        ax.set_yticks(range(len(names)), labels)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_ylabel("group")
    sizes.barh(range(len(names)), [size for *_, size, _ in names], color=BLUE, height=0.6)
    for k, (*_, size, what) in enumerate(names):
        sizes.text(size, k, f" {what}", va="center", fontsize=8, color=INK)
    sizes.margins(x=0.5)
    sizes.set_xlabel("frames")
    sizes.set_title("Groups by the state of the sky")
    sizes.grid(False, axis="y")
    own = [place.get((e.get("session"), e.get("cluster")), np.nan) for e in frames.tables["state_clustering"]]
    drawing.points(course, frames.number, np.array(own, float), VERMILION, "s")
    course.set_title("When they were")
    frames.separate(course)
    return figure


def depth_curve(read, frames, pictures):
    known = [entry for entry in frames.tables["global_metrics"] if entry]
    found = depth.curves(known)
    seconds = found["unit"] == "s"
    factor, unit = (60, "min") if seconds and found["x"][-1] < 7200 else (3600, "h") if seconds else (1, "frames")
    x = found["x"] / factor
    figure, axes = drawing.canvas(1, 2, height=2.9)
    measured = {e["channel"]: e for e in read.get("efficiency", {}).get("channels", ())}
    score = measured.get("G") or next(iter(measured.values()), None)
    for ax, kind, title, key in (
        (axes[0], "extended", "Faint extended light", "eta_sb"),
        (axes[1], "stars", "Stars", "eta_pt"),
    ):
        curve = found[kind]
        ax.plot(x, curve["ceiling"], color=MUTED, linewidth=3.4, alpha=0.45, label="ceiling: the most there is")
        ax.plot(x, curve["mean"], color=VERMILION, linestyle="--", linewidth=1.3, label="plain mean (formula)")
        ax.plot(x, curve["stack"], color=BLUE, linewidth=1.5, label="tile stack (formula)")
        if score and score[key]:
            at = np.sqrt(score[key]) * curve["ceiling"][-1]
            ax.plot(x[-1], at, "D", color=PURPLE, markersize=5, label="tile stack (measured)")
        ax.set_title(title)
        ax.set_xlabel(f"open time ({unit})" if seconds else "frames")
        ax.set_ylabel("S/N (one median frame = 1)")
        ax.set_ylim(bottom=0)
        ax.set_xlim(left=0)
    axes[0].legend(loc="lower right")
    return figure


def losses(read, frames, pictures, rows):
    steps = depth.waterfall(read, rows)
    measured = {e["channel"]: e for e in read.get("efficiency", {}).get("channels", ())}
    score = measured.get("G") or next(iter(measured.values()), None)
    if score and score["eta_sb"] and read["stacking"]["eta_sb"]:
        share = 1 - score["eta_sb"] / read["stacking"]["eta_sb"]
        steps.append(("measured", share, steps[-1][2] * (1 - share)))
    labels = ["all light found", *(words.CAUSES.get(cause, cause) for cause, _, _ in steps), "in the stack"]
    figure, (ax,) = drawing.canvas(1, 1, height=0.32 * len(labels) + 0.9)
    lefts = [1.0, *(left for _, _, left in steps)]
    edge = 100 + 0.03 * 100 * (1 - min(lefts)) + 0.05
    ax.barh(0, 100, color=MUTED, height=0.62)
    ax.text(edge, 0, "100 %", va="center", fontsize=8)
    for k, (_, share, left) in enumerate(steps, start=1):
        ax.barh(k, 100 * (lefts[k - 1] - left), left=100 * left, color=VERMILION, height=0.62)
        ax.plot([100 * lefts[k - 1]] * 2, [k - 0.69, k - 0.31], color=MUTED, linewidth=0.8)
        sign = "\N{MINUS SIGN}" if share > 0 else "+"
        told = "nothing" if abs(share) < 5e-6 else f"{sign}{words.percent(abs(share))}"
        ax.text(edge, k, told, va="center", fontsize=8)
    ax.barh(len(labels) - 1, 100 * lefts[-1], color=BLUE, height=0.62)
    ax.text(edge, len(labels) - 1, words.percent(lefts[-1], 4), va="center", fontsize=8)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    lowest = max(0.0, np.floor(100 - 2.5 * (100 - 100 * min(lefts)) - 2))  # small losses are seen as well as large ones
    ax.set_xlim(lowest, 100)
    ax.set_xticks([tick for tick in ax.get_xticks() if lowest <= tick <= 100])
    ax.set_xlim(lowest, lowest + (100 - lowest) / 0.88)
    ax.spines.bottom.set_bounds(lowest, 100)
    ax.set_xlabel("squared S/N of faint light (% of the best possible with all lights found)")
    ax.grid(False, axis="y")
    return figure


def plane_maps(pictures, fields, beside=0):
    """Maps of planes, with room for other plots beside them."""
    shape = pictures["maps"]["frames"].shape
    n = len(fields) + beside
    height = min(4.4, 7.6 / n * 0.62 * shape[0] / shape[1] + 0.8)
    figure, axes = drawing.canvas(1, n, height=height)
    for ax, (values, title, unit) in zip(axes, fields, strict=False):
        known = values[np.isfinite(values)]
        limits = None
        if unit.startswith("%") and len(known):
            limits = (0, max(np.percentile(known, 99.5), 1e-3))
        drawing.heat(
            figure,
            ax,
            values,
            title,
            unit,
            extent=pictures["extent"],
            bottom_up=pictures["bottom_up"],
            limits=limits,
        )
    return figure


def coverage(read, frames, pictures):
    maps = pictures["maps"]
    timed = read["stacking"]["live_s"] is not None
    factor, unit = (60, "min") if timed and np.nanmax(maps["exposure_s"]) >= 300 else (1, "s" if timed else "frames")
    exposure = maps["exposure_s"] / factor
    return plane_maps(
        pictures,
        [
            (maps["frames"], "Coverage", "frames"),
            (exposure, "Open time", unit),
            (exposure * efficiency_map(read, pictures), "Effective exposure", f"{unit}, formula"),
        ],
    )


def efficiency_map(read, pictures):
    """eta_sb of the tile that each map pixel lies in, of the run where a tile has none."""
    grid, tiles = read["tile_grid"], read["tile_reconstruction"]["tiles"]
    h, w = pictures["maps"]["frames"].shape
    x0, x1, y1, y0 = pictures["extent"]
    eta = records.array(tiles["eta_sb"])
    eta = np.where(np.isfinite(eta), eta, read["stacking"]["eta_sb"] or np.nan)
    index = []
    for n, start, stop, axis in ((h, y0, y1, 0), (w, x0, x1, 1)):
        place = start + (np.arange(n) + 0.5) * (stop - start) / n
        number = np.round((place - grid["first_centre_px"][axis]) / grid["stride_px"]).astype(int)
        index.append(np.clip(number - tiles["first"][axis], 0, eta.shape[axis] - 1))
    return eta[np.ix_(*index)]


def rejection(read, frames, pictures):
    share = 100 * pictures["maps"]["rejected_share"]
    figure = plane_maps(pictures, [(share, "Rejected pixels", "% of the frames there")], beside=1)
    ax = figure.axes[1]
    worst = culprits(read)[:10]
    numbers = {(row["night"], row["file"]): n for n, row in zip(frames.number, frames.rows, strict=True)}
    labels = [f"frame {numbers.get((f['session'], f['file']), '?')}" for f in worst]
    streaks = [min(f["streak_px"], f["rejected_px"]) / 1000 for f in worst]
    ax.barh(range(len(worst)), streaks, color=VERMILION, height=0.65, label="trails")
    rest = [f["rejected_px"] / 1000 - streak for f, streak in zip(worst, streaks, strict=True)]
    ax.barh(range(len(worst)), rest, left=streaks, color=BLUE, height=0.65, label="other")
    ax.set_yticks(range(len(worst)), labels)
    ax.invert_yaxis()
    ax.set_xlabel("rejected pixels (thousands)")
    ax.set_title("Frames with most")
    ax.grid(True, color=GRID)
    ax.grid(False, axis="y")
    above(ax, 2, gap=0.5)
    return figure


def culprits(read):
    """Frames by the pixels that were rejected in them, most first."""
    return sorted(read["tile_reconstruction"]["frames"], key=lambda f: (-f["rejected_px"], f["file"]))


def spans(events):
    """Start and end of each phase of the start that did most of the work, s after its begin.

    Returns
    -------
    list of (str, float, float, str)
        Phase name, begin, end, status.
    """
    starts, current = [], None
    for event in events:
        when = datetime.datetime.fromisoformat(event["ts"]).timestamp()
        if event["type"] == "run_start":
            current = {"begin": when, "last": when, "phases": {}}
            starts.append(current)
        if current is None:
            continue
        current["last"] = when
        if event["type"] == "phase_start":
            current["phases"][event["phase_name"]] = [when, None, "running"]
        elif event["type"] == "phase_end" and event["phase_name"] in current["phases"]:
            current["phases"][event["phase_name"]][1:] = [when, event["status"]]
    if not starts:
        return []
    busiest = max(starts, key=lambda start: (len(start["phases"]), start["begin"]))
    return [
        (name, begin - busiest["begin"], (end or busiest["last"]) - busiest["begin"], status)
        for name, (begin, end, status) in busiest["phases"].items()
    ]


def timeline(events):
    found = spans(events)
    if not found:
        return None
    figure, (ax,) = drawing.canvas(1, 1, height=0.24 * len(found) + 0.8)
    longest = max(end for _, _, end, _ in found)
    factor, unit = (1, "s") if longest < 300 else (60, "min") if longest < 10800 else (3600, "h")
    colours = {"ok": BLUE, "skipped": MUTED, "running": GREEN}
    for k, (_, begin, end, status) in enumerate(found):
        width = max(end - begin, longest / 300) / factor
        ax.barh(k, width, left=begin / factor, color=colours.get(status, VERMILION), height=0.62)
        ax.text(begin / factor + width, k, f" {words.duration(end - begin)}", va="center", fontsize=8)
    ax.set_yticks(range(len(found)), [name.replace("_", " ").lower() for name, *_ in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.margins(x=0.12)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"time since the start ({unit})")
    ax.grid(False, axis="y")
    return figure
