"""What a person wants to know in ten seconds."""

from tilestack.report import words

# Warnings that say something about single lights count them; these say something about the run.
OF_THE_RUN = ("emergency_mode", "catalogue_fallback")
# Optional phases, and the reasons for which it is as it should be that they were skipped, or told by another phase.
OPTIONAL = {"astrometry": "sky coordinates", "bge": "background gradient", "pcc": "colour calibration"}
EXPECTED = ("switched_off", "mono", "no_sky_coordinates", None)
# Below this share of the best possible the verdict says so.
POOR = 0.85


def judge(read, rows):
    """The verdict.

    Parameters
    ----------
    read : dict
        Records by name.
    rows : list of dict
        Of ``frametable.build``.

    Returns
    -------
    dict
        ``level`` (good, fair, bad), ``headline``, ``status``, ``status_words``, ``used``, ``found``, ``live_s``,
        ``effective_s``, ``eta_pt``, ``eta_sb`` (each ``value``, ``error``, ``kind``), ``fwhm_px``, ``fwhm_arcsec``,
        ``warnings`` (each ``meaning``, ``advice``, ``count``, ``level``).
    """
    stack = read["stacking"]
    status = read["run_status"]["status"]
    etas = {key: eta(read, key) for key in ("eta_pt", "eta_sb")}
    live = stack["live_s"]
    scale = (read.get("astrometry") or {}).get("lattice_scale_arcsec")
    warnings = collect(read, rows)
    used = sum(row["status"] == "used" for row in rows)
    bad = status != "ok"
    fair = any(entry["level"] == "warning" for entry in warnings)
    return {
        "level": "bad" if bad else "fair" if fair else "good",
        "headline": headline(status, warnings),
        "status": status,
        "status_words": words.STATUS.get(status, status),
        "used": used,
        "found": len(rows),
        "live_s": live,
        "effective_s": etas["eta_sb"]["value"] * live if live and etas["eta_sb"]["value"] is not None else None,
        **etas,
        "fwhm_px": stack["fwhm_px"],
        "fwhm_arcsec": stack["fwhm_px"] * scale if stack["fwhm_px"] and scale else None,
        "warnings": warnings,
    }


def headline(status, warnings):
    """One sentence."""
    if status == "validation_failed":
        n = sum(entry["level"] == "failure" for entry in warnings)
        return (
            f"The stack is there, but {n} of its checks failed." if n > 1 else "The stack is there, but a check failed."
        )
    if status != "ok":
        return f"The run {words.STATUS.get(status, status)}."
    told = sum(entry["level"] == "warning" for entry in warnings)
    if not told:
        return "The stack is good: every check passed."
    return f"The stack is good, with {told} thing{'s' * (told > 1)} to know."


def eta(read, key):
    """An efficiency with its kind: measured where that was done, else by formula."""
    channels = read.get("efficiency", {}).get("channels", [])
    # Green stands for a colour image: it has half of the pixels.
    chosen = [entry for entry in channels if entry["channel"] == "G"] or channels
    if chosen and chosen[0][key] is not None:
        return {"value": chosen[0][key], "error": chosen[0][f"{key}_error"], "kind": "measured"}
    return {"value": read["stacking"][key], "error": None, "kind": read["stacking"]["efficiency_kind"]}


def collect(read, rows):
    """Warnings of the whole run in plain words, failures first, each with advice."""
    found = []
    for check in read.get("validation", {}).get("checks", ()):
        if not check["ok"]:
            value, limit = words.plain(check["value"]), words.plain(check["threshold"])
            name = words.CHECKS.get(check["name"], check["name"])
            text = f"{name}: {value}, where at most {limit} is expected"
            found.append({"level": "failure", "meaning": text, "advice": check["advice"], "count": 1, "files": []})
    counts = {}
    for record in read.values():
        if record.get("phase_name") and not (record["phase_name"] == "STACKING" and "checks" in record):
            for code, n in {**record.get("reasons", {}), **record.get("warnings", {})}.items():
                counts[code] = max(counts.get(code, 0), n)
    for code, n in counts.items():
        files = [row["file"] for row in rows if code in row["codes"]]
        what = words.meaning(code)
        text = what if code in OF_THE_RUN else f"{n} light{'s' * (n != 1)}: {what}"
        found.append(
            {"level": "warning", "meaning": text, "advice": words.advice(code), "count": n, "files": files[:20]}
        )
    for name, what in OPTIONAL.items():
        reason = read.get(name, {}).get("reason")
        if reason not in EXPECTED:
            found.append(
                {
                    "level": "warning",
                    "meaning": f"no {what}: {words.meaning(reason)}",
                    "advice": words.advice(reason),
                    "count": 1,
                    "files": [],
                }
            )
    for key, what in (("eta_sb", "faint extended light"), ("eta_pt", "stars")):
        score = eta(read, key)
        if score["value"] is not None and score["value"] < POOR:
            found.append(
                {
                    "level": "warning",
                    "meaning": f"the stack reaches {words.percent(score['value'])} of the best possible for {what}",
                    "advice": "See where the light goes, below: the largest bar is the cause.",
                    "count": 1,
                    "files": [],
                }
            )
    return found
