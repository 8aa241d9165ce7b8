"""Decisions about lights, from the facts about them: which are used, what they are, whether the run can go on.

A decision about a session looks at its own facts and at those of earlier sessions, never at later ones: so a new night
changes nothing about an old one.
"""

import fnmatch
from collections import Counter
from statistics import median

from tilestack.bayer import PATTERNS
from tilestack.job import Stop

# A light that is much less noisy than the others and shows no stars where they do had another exposure.
ODD_NOISE_RATIO = 0.6
ODD_PEAK_SHARE = 0.1
# In a linear light stars above a height grow rarer as height^-1 or slower, so of N stars above 8 sigma the highest
# pixel stays below T sigma with a chance of (1 - 8 / T)^N at the most. A stretch brings bright pixels down: T was
# 185-3000 in real and simulated linear lights, 25-80 after usual stretches (asinh, midtones) of the same ones.
STRETCHED_REACH, STRETCHED_CHANCE, FEWEST_PEAKS = 120.0, 0.06, 9
# Response bends just below the full range of a sensor. ASSUME two percent: enough for the sensors at hand.
SATURATED_SHARE = 0.98
# Clusters of a batch in full mode: frames of one state follow each other. ASSUME.
CLUSTERS = 3


def decide(sessions, scan, tolerance_percent, given_filters=None):
    """Decide on the lights of sessions, in their order.

    Parameters
    ----------
    sessions : list of (str, list of dict)
        Id and facts (``inspection.inspect``) of each session, first come first.
    scan : dict
        Section ``scan`` of the configuration.
    tolerance_percent : float
        Exposures that differ by less than this share count as equal.
    given_filters : dict, optional
        Filter of a session, by id, where ``input`` names one.

    Returns
    -------
    dict
        By session id: ``shape``, ``colour_mode`` (``mono`` or ``osc``), ``bayer_pattern``, ``saturation_adu`` (null:
        none known), ``kinds`` (number of its used lights that are ``osc`` and ``mono``) and ``files``: for each light
        in the given order ``name``, ``status`` (``ok``, ``warning``, ``excluded``), ``reason``, ``message``,
        ``warnings``, ``exposure_s``, ``filter``, ``gain_e_adu``.
    """
    decided, seen, known = {}, {}, []
    for session, facts in sessions:
        result = _decide_session(facts, scan, tolerance_percent, (given_filters or {}).get(session), seen, known)
        if decided and not any(file["status"] != "excluded" for file in result["files"]):
            first = next(iter(decided.values()))
            result |= {key: first[key] for key in ("colour_mode", "bayer_pattern")}
        decided[session] = result
        known += [f for f, file in zip(facts, result["files"], strict=True) if file["status"] != "excluded"]
    return decided


def _decide_session(all_facts, scan, tolerance_percent, given_filter, seen, known):
    readable = [facts for facts in all_facts if facts["error"] is None and not _no_light(facts, scan)]
    shape = _majority([tuple(facts["shape"]) for facts in readable])
    mode, pattern = _colour_mode(readable, scan)
    camera = _majority([facts["camera"] for facts in readable if facts["camera"]])
    bitpix = _majority([facts["bitpix"] for facts in readable])
    exposure = _majority([facts["exposure_s"] for facts in readable if facts["exposure_s"]])
    typical = {"shape": shape, "pattern": pattern, "camera": camera, "bitpix": bitpix}
    peers = [f for f in [*known, *readable] if tuple(f["shape"]) == shape]
    files = []
    for facts in all_facts:
        reason, message = _fault(facts, scan, typical, peers, seen)
        warnings = [] if reason else _warnings(facts, scan, exposure, tolerance_percent)
        if not reason:
            seen[facts["pixel_sha256"]] = facts["name"]
        files.append(
            {
                "name": facts["name"],
                "status": "excluded" if reason else "warning" if warnings else "ok",
                "reason": reason,
                "message": message,
                "warnings": warnings,
                "exposure_s": facts.get("exposure_s") or scan["exposure_s"],
                "filter": given_filter or facts.get("filter") or scan["filter"],
                "gain_e_adu": scan["gain_e_adu"] or facts.get("gain_e_adu"),
            }
        )
    used = [f for f, file in zip(all_facts, files, strict=True) if file["status"] != "excluded"]
    return {
        "shape": list(shape) if shape else None,
        "colour_mode": mode,
        "bayer_pattern": pattern,
        "kinds": _kinds(used, scan, mode),
        "saturation_adu": scan["saturation_adu"] or _saturation(used),
        "files": files,
    }


def _majority(values):
    """The most frequent value, of equals the first; None of none."""
    return Counter(values).most_common(1)[0][0] if values else None


def _colour_mode(readable, scan):
    """Mono or one-shot colour, and the pattern: the configuration, else the headers, else what the pixels show."""
    pattern = scan["bayer_pattern"]
    if pattern == "auto":
        pattern = _majority([f["bayer_pattern"] for f in readable if f["bayer_pattern"]])
    mode = scan["colour_mode"]
    if mode == "auto":
        colours = sum(bool(f["bayer_pattern"]) or f["looks_cfa"] for f in readable)
        mode = "osc" if scan["bayer_pattern"] != "auto" or colours > len(readable) / 2 else "mono"
    return mode, pattern if mode == "osc" else None


def _kinds(used, scan, mode):
    """Number of lights that are ``osc`` and ``mono``: by header, or by pixels where only others name a pattern."""
    asked = scan["colour_mode"] != "auto" or scan["bayer_pattern"] != "auto"
    if asked or not any(facts["bayer_pattern"] for facts in used):
        return {mode: len(used)} if used else {}
    return dict(Counter("osc" if facts["bayer_pattern"] or facts["looks_cfa"] else "mono" for facts in used))


def _no_light(facts, scan):
    """Reason code and sentence for a file that is no light by its name or header, or None."""
    for glob in scan["exclude"]:
        if fnmatch.fnmatch(facts["name"], glob):
            return "excluded_by_user", f"matches scan.exclude pattern {glob}"
    if facts["error"]:
        return facts["error"]["reason"], facts["error"]["message"]
    kind = (facts["image_type"] or "").lower()
    if any(word in kind for word in ("dark", "flat", "bias", "offset")):
        return "not_a_light", f"IMAGETYP is {facts['image_type']!r}"
    if facts["n_stacked"] > 1:
        return "stacked_product", f"its header says that {facts['n_stacked']} exposures are in it"
    return None


def _fault(facts, scan, typical, peers, seen):
    """Reason code and sentence for a light that is not used, or (None, None)."""
    if fault := _no_light(facts, scan):
        return fault
    if tuple(facts["shape"]) != typical["shape"]:
        return "wrong_size", f"has {facts['shape']} rows and columns, most of the session {list(typical['shape'])}"
    if scan["bayer_pattern"] == "auto" and scan["colour_mode"] != "mono" and facts["bayer_pattern"]:
        if facts["bayer_pattern"] not in PATTERNS:
            return "unknown_bayer_pattern", f"BAYERPAT is {facts['bayer_pattern']!r}: none of {', '.join(PATTERNS)}"
        if typical["pattern"] and facts["bayer_pattern"] != typical["pattern"]:
            return "wrong_bayer_pattern", f"is {facts['bayer_pattern']}, most of the session {typical['pattern']}"
    if facts["camera"] and facts["camera"] != typical["camera"]:
        return "other_camera", f"is from {facts['camera']!r}, most of the session from {typical['camera']!r}"
    if facts["nan_share"] > scan["nan_share_max"]:
        return "nan_share", f"{facts['nan_share']:.0%} of its pixels hold no data (limit {scan['nan_share_max']:.0%})"
    n_pixels = facts["shape"][0] * facts["shape"][1]
    if facts["highest_adu"] == 0:
        return "all_zero", "no pixel is above 0"
    if facts["n_highest"] > n_pixels / 2:
        return "all_saturated", f"most pixels are at {facts['highest_adu']:g} ADU"
    if facts["noise_adu"] == 0:
        return "no_noise", f"its sky is one value, {facts['level_adu']:g} ADU: clipped, or not as the camera wrote it"
    if facts["pixel_sha256"] in seen:
        return "duplicate", f"holds the same pixels as {seen[facts['pixel_sha256']]}"
    if facts["bitpix"] != typical["bitpix"] and facts["noise_adu"] < 0.5 * _peer(peers, facts, "noise_adu"):
        return "stacked_product", f"BITPIX {facts['bitpix']} with little noise among BITPIX {typical['bitpix']} lights"
    # Of a light whose header tells another exposure that is known; here pixels tell of exposures that are not.
    mine = facts["exposure_s"]
    peers = [f for f in peers if not f["exposure_s"] or not mine or abs(f["exposure_s"] / mine - 1) < 0.5]
    noise, peaks = _peer(peers, facts, "noise_adu"), _peer(peers, facts, "n_peaks")
    if len(peers) >= 3 and facts["noise_adu"] < ODD_NOISE_RATIO * noise and facts["n_peaks"] < ODD_PEAK_SHARE * peaks:
        return "odd_exposure", (
            f"shows {facts['n_peaks']} stars and a noise of {facts['noise_adu']:.3g} ADU, "
            f"the others {peaks:g} and {noise:.3g}: taken for another exposure"
        )
    return None, None


def _peer(peers, facts, key):
    """Median of a fact over the other lights of the same size, itself where there are none."""
    return median([peer[key] for peer in peers if peer is not facts] or [facts[key]])


def _warnings(facts, scan, exposure, tolerance_percent):
    warnings = ["bad_card"] if facts["bad_cards"] else []
    if facts["n_peaks"] >= FEWEST_PEAKS and 8 < facts["reach"] < STRETCHED_REACH:
        if (1 - 8 / facts["reach"]) ** facts["n_peaks"] < STRETCHED_CHANCE:
            warnings.append("nonlinear")
    if not facts["exposure_s"] and not scan["exposure_s"]:
        warnings.append("no_exposure")
    if facts["exposure_s"] and abs(facts["exposure_s"] - exposure) > tolerance_percent / 100 * exposure:
        warnings.append("other_exposure")
    if facts["nan_share"] > 0:
        warnings.append("nan_pixels")
    if facts["zero_share"] > 0.01:
        warnings.append("zero_pixels")
    return warnings


def _saturation(used):
    """Pixel value from which a pixel of the session counts as saturated, or None where none is known."""
    levels = [f["saturate_adu"] for f in used if f["saturate_adu"]]
    if used and used[0]["bitpix"] in (8, 16):
        lowest = -(2 ** (used[0]["bitpix"] - 1)) if used[0]["bitpix"] > 8 else 0
        levels.append(SATURATED_SHARE * (lowest + 2 ** used[0]["bitpix"] - 1 + used[0]["bzero"]))
    # Clipping below the full range shows as many pixels at one highest value, the same in several lights.
    clipped = Counter(f["highest_adu"] for f in used if f["n_highest"] >= 3)
    levels += [SATURATED_SHARE * level for level, count in clipped.items() if count >= 2]
    return min(levels, default=None)


def check(decided, assumptions):
    """Stop where the run as a whole cannot go on; otherwise say in which mode it goes.

    Parameters
    ----------
    decided : dict
        As from ``decide``.
    assumptions : dict
        Section ``assumptions`` of the configuration.

    Returns
    -------
    str
        ``emergency``, ``reduced`` or ``full``.

    Raises
    ------
    Stop
        ``mixed_colour_modes``, ``no_bayer_pattern``, ``mixed_filters`` or ``insufficient_frames``.
    """
    used = {s: [f for f in result["files"] if f["status"] != "excluded"] for s, result in decided.items()}
    modes = {s: result["colour_mode"] for s, result in decided.items() if used[s]}
    kinds = {s: decided[s]["kinds"] for s in modes}
    if len({kind for counts in kinds.values() for kind in counts}) > 1 or len(set(modes.values())) > 1:
        listing = "; ".join(f"{s}: {' and '.join(f'{n} {k}' for k, n in c.items())}" for s, c in kinds.items())
        raise Stop(
            "mixed_colour_modes",
            f"mono and colour (osc) lights in one run ({listing}): make one run for each, leave files out by "
            "scan.exclude, or say by scan.colour_mode or scan.bayer_pattern what they are",
        )
    for s, mode in modes.items():
        if mode == "osc" and decided[s]["bayer_pattern"] is None:
            raise Stop(
                "no_bayer_pattern",
                f"the lights of {s} look like a colour mosaic but name no BAYERPAT: set scan.bayer_pattern to RGGB, "
                "BGGR, GRBG or GBRG, or scan.colour_mode to mono",
            )
    filters = {s: sorted({f["filter"] for f in files if f["filter"]}) for s, files in used.items()}
    names = sorted({name for found in filters.values() for name in found})
    if len(names) > 1:
        listing = "; ".join(f"{s}: {', '.join(found)}" for s, found in filters.items() if found)
        raise Stop(
            "mixed_filters",
            f"lights of the filters {', '.join(names)} in one run ({listing}). Make one run a filter, with "
            "registration.reference naming a frame of the first run, so that all share one lattice",
        )
    n_used = sum(map(len, used.values()))
    reasons = Counter(f["reason"] for result in decided.values() for f in result["files"] if f["reason"])
    out = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none left out"
    first, files = next(iter(used.items()))
    if not files:
        raise Stop(
            "insufficient_frames",
            f"no usable light in the first session {first} ({out}): {decided[first]['files'][0]['message']}",
            "insufficient_frames",
        )
    if n_used < assumptions["frames_min"] and not assumptions["allow_emergency_mode"]:
        raise Stop(
            "insufficient_frames",
            f"{n_used} usable lights, assumptions.frames_min asks for {assumptions['frames_min']} ({out}). Add lights, "
            "lower assumptions.frames_min, or set assumptions.allow_emergency_mode",
            "insufficient_frames",
        )
    if n_used < assumptions["frames_min"]:
        return "emergency"
    return "reduced" if n_used < assumptions["frames_reduced_threshold"] else "full"


def disk_need_bytes(batches, drizzled=0, split_sessions=0, flat_weights=False, by_cluster=False, canvas_share=1.5):
    """Bytes that a run writes at the most, from its plan.

    Parameters
    ----------
    batches : list of (int, int, int)
        Lights to be written, rows and columns of each batch; 0 lights of one that is done.
    drizzled : int
        Drizzled planes beside the mosaic, in planes of its size: of three colours at scale 2 twelve.
    split_sessions : int
        Sessions whose sums are kept by cluster.
    flat_weights : bool
        Whether they are kept with one weight a frame too.
    by_cluster : bool
        Whether those of colours are kept by cluster too, and the stack is their combination.
    canvas_share : float
        Box of a moved light over the light: 1 without rotation, 2.2 at 45 degrees for frames of 9:16. ASSUME 1.5.
    """
    # Of a pixel: sums of a cluster in a batch.
    mosaic, colours, clusters = 42, 38 * drizzled, CLUSTERS if split_sessions else 1
    of_batch = clusters * (mosaic + flat_weights * 26)
    of_batch += clusters * (colours + flat_weights * 34 * drizzled) if by_cluster else colours
    # Of a pixel of a light: its code, and what is left out of the sums (measured: 0.25 bytes).
    prewarped = sum(2.3 * n * rows * columns for n, rows, columns in batches)
    sums = sum(of_batch * rows * columns for n, rows, columns in batches if n)
    largest = max((rows * columns for _, rows, columns in batches), default=0)
    # Planes of the reconstruction, and the products, mosaic and colour, twice: without and with sky coordinates. Plain
    # mono lights have one stack for both (measured: 139 bytes in all).
    products = 4 * (40 + (30 * drizzled or 15)) * largest
    # And synthetic frames with what they are combined to.
    products += (split_sessions * CLUSTERS * 22 + by_cluster * 4 * (15 + 13 * drizzled)) * largest
    return int(prewarped + canvas_share * (sums + products))
