"""The reference: the frame whose pixel grid is the lattice, and the frame whose ADU scale is that of the run. Lean."""

import numpy as np

from tilestack import lattice
from tilestack.job import Stop

# Stars behind the score of a frame.
N_SCORE_STARS = 30


def score(frame):
    """How good a frame is as reference: the S/N of its stars for their sharpness.

    The sum of the signal-to-noise ratios of its brightest stars over the FWHM: it rises with transparency, star count
    and sharpness alike.
    """
    stars = frame["stars"]
    flux, error = (
        np.sum(np.array(stars[key]), axis=1) if stars[key] else np.zeros(0) for key in ("flux", "flux_error")
    )
    usable = (np.array(stars["flags"], int) & 0b1101) == 0  # not saturated, at the rim or failed
    snr = np.sort((flux / np.maximum(error, 1e-9))[usable])[::-1][:N_SCORE_STARS]
    return float(snr.sum() / fwhm(frame)) if usable.any() else 0.0


def fwhm(frame):
    """Median FWHM of the clean stars of a frame in raw pixels, NaN without any."""
    stars = frame["stars"]
    clean = (np.array(stars["flags"], int) & 0b1101) == 0
    values, errors = np.array(stars["fwhm"], float)[clean], np.array(stars["fwhm_error"], float)[clean]
    good = values[errors < 0.1 * values]
    return float(np.median(good if len(good) >= 5 else values)) if len(values) else np.nan


def choose(batches, wanted, other):
    """Choose the reference of a run from its first session.

    Parameters
    ----------
    batches : dict
        Star records of the first session by batch id.
    wanted : str or None
        ``registration.reference``: a file of the session, or run_id/file.
    other : dict or None
        Reference record of the other run that `wanted` names.

    Returns
    -------
    dict
        Record ``work/reference.json``.
    """
    head = next(iter(batches.values()))
    frames = [(batch, f) for batch, record in batches.items() for f in record["frames"] if f["status"] != "excluded"]
    scored = [
        {"file": f["name"], "batch": b, "score": score(f), "fwhm_px": fwhm(f), "n_stars": len(f["stars"]["x"])}
        for b, f in frames
    ]
    best = max(scored, key=lambda s: s["score"])
    if wanted and not other:
        named = [s for s in scored if s["file"] == wanted]
        if not named:
            raise Stop(
                "no_such_reference", f"registration.reference {wanted!r} is no usable light of {head['session']}"
            )
        best = named[0]
    if not best["score"] > 0:
        raise Stop(
            "no_stars",
            f"no light of the first session {head['session']} shows a star: {len(frames)} looked at with "
            "registration.sigma. Are these lights of the sky, and in focus?",
        )
    frame = next(f for _, f in frames if f["name"] == best["file"])
    if other:
        grid = other["lattice"]
        if wanted.split("/")[-1] != grid["file"]:
            raise Stop(
                "no_such_reference",
                f"the lattice of run {wanted.split('/')[0]} is that of {grid['file']}, got {wanted!r}",
            )
        if (grid["bayer_pattern"] is None) != (head["bayer_pattern"] is None):
            raise Stop("mixed_colour_modes", f"{wanted!r} and this run are not both mono or both colour")
    else:
        columns = ("x", "y", "position_error", "flux")
        grid = {
            "file": best["file"],
            "session": head["session"],
            "shape": head["shape"],
            "bayer_pattern": head["bayer_pattern"],
            "channels": head["channels"],
            "mesh_px": lattice.mesh_px(head["shape"]),
            "hint": frame["hint"],
            "pixel_aspect": frame["pixel_aspect"],
            "stars": {key: frame["stars"][key] for key in columns},
        }
    widths = [s["fwhm_px"] for s in scored if np.isfinite(s["fwhm_px"])]
    photometric = {"file": best["file"], "session": head["session"], "batch": best["batch"]}
    return {"lattice": grid, "photometric": photometric, "fwhm_px": float(np.median(widths)), "candidates": scored}
