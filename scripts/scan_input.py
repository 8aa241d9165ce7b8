"""Decide on the lights of the run, and stop it where it cannot go on."""

import shutil
from collections import Counter
from pathlib import Path

from tilestack import job, records, selection

# Of what is decided about a session.
KEPT = ("shape", "colour_mode", "bayer_pattern", "saturation_adu")


def scan_input(facts_paths, out, *, plan, scan, assumptions, drizzle, clusters, run_folder):
    """facts_paths: by session id, the paths of its batches, in order; plan: by session id, its folder and filter;
    clusters: what ``selection.disk_need_bytes`` takes beside batches and planes."""
    facts = {s: [records.read(path)["files"] for path in paths] for s, paths in facts_paths.items()}
    sessions = [(s, [file for batch in batches for file in batch]) for s, batches in facts.items()]
    filters = {s: entry["filter"] for s, entry in plan.items()}
    decided = selection.decide(sessions, scan, assumptions["exposure_time_tolerance_percent"], filters)
    mode = selection.check(decided, assumptions)
    planes = 3 if next(iter(decided.values()))["colour_mode"] == "osc" else int(drizzle["mono"])
    disk = check_disk(decided, facts, run_folder, planes * drizzle["scale"] ** 2, clusters)
    files = [
        {**{key: value for key, value in fact.items() if key != "error"}, **file, "session": s}
        for s, all_facts in sessions
        for file, fact in zip(decided[s]["files"], all_facts, strict=True)
    ]
    counts = Counter(file["status"] for file in files)
    settled = [{"id": s, "folder": plan[s]["folder"], **{key: decided[s][key] for key in KEPT}} for s in decided]
    warnings = Counter(warning for file in files for warning in file["warnings"])
    warnings.update(["emergency_mode"] * (mode == "emergency"))
    summary = {"files": len(files), **{key: counts[key] for key in ("ok", "warning", "excluded")}, "mode": mode}
    records.write(
        out,
        {
            "phase": 0,
            "phase_name": "SCAN_INPUT",
            "status": "ok",
            "summary": summary,
            "mode": mode,
            "colour_mode": settled[0]["colour_mode"],
            "filter": next((file["filter"] for file in files if file["filter"] and file["status"] != "excluded"), None),
            "reasons": dict(Counter(file["reason"] for file in files if file["reason"])),
            "warnings": dict(warnings),
            "sessions": settled,
            "files": files,
            "disk": disk,
        },
    )


def check_disk(decided, facts, run_folder, planes, clusters):
    """Compare what the run will write, by ``disk_need_bytes``, with the space, less what is written yet."""
    batches, drafts = [], [*Path(run_folder, "work").glob("reconstruction*/*.fits")]
    for s, result in decided.items():
        used = iter(file["status"] != "excluded" for file in result["files"])
        for number, batch in enumerate(facts[s], start=1):
            n_used = sum(next(used) for _ in batch)
            # What has its sums is not made again, also where clean_work took its pixels.
            summed = Path(run_folder, "work/sums", s, f"{number:04d}.fits").exists()
            batches.append((0 if summed else n_used, *(result["shape"] or (0, 0))))
            if not summed:
                drafts.append(Path(run_folder, "work/prewarp", s, f"{number:04d}.fits"))
    need = selection.disk_need_bytes(batches, planes, **clusters)
    written = sum(path.stat().st_size for path in drafts if path.exists())
    free = shutil.disk_usage(run_folder).free
    if need - written > free:
        raise job.Stop(
            "insufficient_disk_space",
            f"the run writes up to {need / 1e9:.1f} GB under {run_folder} ({written / 1e9:.1f} GB of them are there), "
            f"the disk has {free / 1e9:.1f} GB left: free space, or start from another --directory",
            "insufficient_disk_space",
        )
    return {"need_bytes": need, "written_bytes": written, "free_bytes": free}


if __name__ == "__main__":
    with job.started(snakemake):
        paths = iter(snakemake.input)
        scan_input(
            {s: [next(paths) for _ in entry["batches"]] for s, entry in snakemake.params.plan.items()},
            snakemake.output[0],
            plan=snakemake.params.plan,
            scan=snakemake.params.scan,
            assumptions=snakemake.params.assumptions,
            drizzle=snakemake.params.drizzle,
            clusters=snakemake.params.clusters,
            run_folder=snakemake.params.run_folder,
        )
