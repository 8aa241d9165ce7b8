"""Key numbers of each section, as (label, value, explanation)."""

from tilestack.report import words
from tilestack.report.words import percent, plain


def phase(read, name):
    """Status of a phase: ``status``, ``reason`` in words and ``advice``; skipped where there is no record."""
    record = read.get(name)
    if record is None:
        return {"status": "skipped", "reason": words.meaning("no_record"), "advice": words.advice("no_record")}
    reason = record.get("reason")
    return {
        "status": record["status"],
        "reason": words.meaning(reason) if reason else None,
        "advice": words.advice(reason) if reason else None,
    }


def normalization(record):
    sources = {"given": "given", "measured": "measured from the frames", "unknown": "unknown"}
    low, high = record["summary"].get("scale_range", (None, None))
    return [
        ("Scale of the frames", f"{plain(low, 3)} to {plain(high, 3)}", "1 is the reference; smaller is less light"),
        (
            "Scaled by stars",
            f"{record['summary'].get('scaled_by_stars')} frames",
            "the others by structure or exposure",
        ),
        *(
            (
                f"Gain, {session['session']}",
                f"{plain(session['gain']['e_per_adu'], 3)} e\N{SUPERSCRIPT MINUS}/ADU",
                sources[session["gain"]["source"]],
            )
            for session in record["sessions"][:6]
        ),
    ]


def global_metrics(record):
    return [
        ("Median FWHM", f"{plain(record['summary'].get('median_fwhm_px'), 3)} px", "of the frames"),
        (
            "Effective frames",
            plain(record["summary"].get("effective_frames"), 4),
            f"of {len(record['frames'])}: so many equal frames have the same weight",
        ),
        ("Weights for", record["objective"], "weights.objective"),
        ("Quality model", record["quality_model"], "quality_model"),
    ]


def registration(record):
    methods = ", ".join(f"{n} by {words.METHODS.get(key, key)}" for key, n in record["methods"].items() if n)
    facts = [
        ("Placed", f"{record['summary'].get('matched')} of {record['summary'].get('frames')} matched", methods),
        (
            "Median residual",
            f"{plain(record['summary'].get('median_residual_px'), 3)} px",
            "rms distance of matched stars",
        ),
        ("Reference", record["reference"], "its pixel grid is that of the stack"),
    ]
    for session in record["sessions"][:6]:
        if session["shift_range_px"]:
            y, x = session["shift_range_px"]
            turned = plain(session["rotation_range_deg"], 2)
            what = f"{session['model']} transforms; {percent(session['dither_share'])} of the steps above 1 px"
            value = f"{plain(x, 3)} \N{MULTIPLICATION SIGN} {plain(y, 3)} px, {turned}\N{DEGREE SIGN}"
            facts.append((f"Range, {session['session']}", value, what))
    return facts


def tiles(read):
    grid, local = read["tile_grid"], read["local_metrics"]
    gain = local["summary"].get("predicted_gain")
    matter = local["summary"].get("local_weights_matter")
    return [
        ("Tiles", f"{grid['rows']} \N{MULTIPLICATION SIGN} {grid['columns']}", "rows and columns"),
        ("Size", f"{grid['tile_px']} px", f"a tile every {grid['stride_px']} px, {grid['overlap_px']} px overlap"),
        (
            "Gain by local weights",
            percent(gain, 2),
            "of squared S/N, by formula" + ("" if matter else ": this night was even over the field"),
        ),
    ]


def reconstruction(record):
    step = record["boundary_step"]
    facts = [
        ("Rejected", percent(record["rejected_share"]), "of all pixels of all frames"),
        ("Frames at a pixel", plain(record["summary"].get("mean_frames"), 4), "mean over the canvas"),
        ("Step at tile borders", plain(step, 3), "1 is no seam"),
        ("Pixels put back", plain(record["differs_px"]), "too many frames differed there from the template"),
    ]
    if record["drizzled"]:
        drizzled = record["drizzled"]
        facts.append(
            (
                "Colours",
                f"{drizzled['kernel']} drizzle",
                f"drops of {plain(drizzled['pixfrac'], 2)} pixel, scale {drizzled['scale']}",
            )
        )
    return facts


def clusters(read):
    record = read["state_clustering"]
    facts = []
    for session in record["sessions"]:
        if session["n_clusters"] > 1:
            note = f"silhouette {plain(session['silhouette'], 2)}, stability {plain(session['stability'], 2)}"
            facts.append((session["session"], f"{session['n_clusters']} groups by {session['method']}", note))
    stack = read["stacking"]
    frames = len(read.get("synthetic_frames", {}).get("frames", ()))
    facts.append(("Synthetic frames", plain(frames), "one for each group"))
    used = stack["source"] == "synthetic"
    facts.append(
        ("The stack is made of", "synthetic frames" if used else "the frames themselves", stack["method"] or "")
    )
    return facts


def astrometry(record):
    h, w = record["field_deg"] or (None, None)
    parity = {1: "as on the sky", -1: "mirrored"}.get(record["parity"], "")
    return [
        (
            "Centre",
            f"{plain(record['ra_deg'], 7)}\N{DEGREE SIGN}, {plain(record['dec_deg'], 7)}\N{DEGREE SIGN}",
            "RA, Dec, ICRS",
        ),
        ("Scale", f"{plain(record['scale_arcsec'], 5)} arcsec/px", parity),
        ("Field", f"{plain(w, 3)}\N{DEGREE SIGN} \N{MULTIPLICATION SIGN} {plain(h, 3)}\N{DEGREE SIGN}", ""),
        ("Rotation", f"{plain(record['rotation_deg'], 4)}\N{DEGREE SIGN}", ""),
        ("Stars matched", plain(record["n_matches"]), record.get("catalogue") or ""),
        ("Error", f"{plain(record['rms_arcsec'], 3)} arcsec", "rms distance to the catalogue"),
        ("Solver", record["solver"] or "none", ""),
    ]


def bge(record):
    facts = [
        ("Model", words.BACKGROUNDS[record["method"]], f"with a polynomial of order {plain(record['order'])}"),
        ("Samples of blank sky", plain(record["n_samples"]), f"{percent(record['kept_share'])} kept"),
    ]
    for entry in record["channels"]:
        left, taken = (percent(entry[key], 2) for key in ("residual_share", "object_share"))
        note = f"{left} of it left, {taken} of the object's light taken"
        facts.append((f"Gradient {entry['channel']}", f"{plain(entry['amplitude_adu'], 3)} ADU", note))
    return facts


def pcc(record):
    facts = [
        ("Grade", record["grade"] or "none", f"{record['n_stars']} stars, {record['catalogue'] or 'no catalogue'}"),
        ("Gains R, G, B", plain(record["gains"], 4), f"white is {words.meaning(record['white_reference'])}"),
        ("Scatter of stars", f"{plain(record['residual_mag'], 2)} mag", "R/G, B/G"),
        ("Slopes", plain(record["slopes"], 3), "mag per mag of B \N{MINUS SIGN} V: R/G, B/G"),
    ]
    check = record.get("colour_check")
    if check and check["slope"] is not None:
        facts.append(
            ("Colours after it", f"slope {plain(check['slope'], 3)}", f"scatter {plain(check['scatter_mag'], 2)} mag")
        )
    return facts
