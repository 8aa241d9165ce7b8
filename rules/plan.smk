"""Which frames: plan.json, an append-only list of sessions and closed batches, and the input functions that read it."""

import functools

LIGHT_NAME = re.compile(r"[^.].*\.(fit|fits|fts)(\.gz|\.fz)?", re.IGNORECASE | re.DOTALL)
DEMO_LIGHTS = [f"light_{k + 1:04d}.fits" for k in range(config["demonstration"]["n_frames"])]


wildcard_constraints:
    session="[^/]+",
    batch="[0-9]{4}",


def lights_in(folder):
    """Names of the frames in a folder, sorted: scandir promises no order. Links that lead nowhere are none."""
    names = [entry.name for entry in os.scandir(folder) if LIGHT_NAME.fullmatch(entry.name)]
    return sorted(name for name in names if os.path.isfile(os.path.join(folder, name)))


def equal_parts(names, most):
    """The names cut into as few parts of at most `most` as will do, of equal length but for one; into two from 500 on,
    as a job has at most eight threads. Sums of three clusters take as much as some 250 prewarped frames, so smaller
    batches would write more sums than frames."""
    n_parts = max(-(-len(names) // most), min(len(names) // 250, 2))
    edges = [len(names) * k // n_parts for k in range(n_parts + 1)]
    return [names[start:end] for start, end in zip(edges, edges[1:])]


def add_session(plan, folder, real, names):
    """Append the frames not seen before as one session, closed from the start; nothing recorded is ever changed."""
    seen = {name for s in plan["sessions"] if s["real"] == real for batch in s["batches"] for name in batch}
    new = [name for name in names if name not in seen]
    if not new:
        return
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(folder).name)[:20].strip("-") or "session"
    plan["sessions"].append(
        {
            "id": f"{len(plan['sessions']) + 1:02d}_{slug}",
            "folder": folder,
            "real": real,  # one folder stays one folder by another path or a symlink
            "batches": equal_parts(new, config["frames_per_batch"]),
        }
    )


def input_folders():
    """The listed folders with the filter that was given for each, or none."""
    return [(e["path"], e.get("filter")) if isinstance(e, dict) else (e, None) for e in config["input"]]


def make_plan():
    """The recorded sessions, plus a new one for each listed folder that holds frames not seen before."""
    plan = json.loads(AS_READ[PLAN_FILE] or '{"version": 1, "sessions": []}')
    if not MAIN:
        return plan  # a cluster job lists no folder: its node may see other files by now
    folders = input_folders()
    for folder, _ in folders:
        real = os.path.realpath(folder)
        if os.path.isdir(real):
            add_session(plan, folder, real, lights_in(real))
        elif os.path.exists(real):
            raise WorkflowError(f"input {folder} is a file: give the folder that holds the lights")
        elif real not in {s["real"] for s in plan["sessions"]}:
            raise WorkflowError(f"input folder {folder} does not exist (relative paths start at {os.getcwd()})")
        # else: lights moved away after the run; what was made from them stays valid
    if not folders:
        add_session(plan, f"{RUN}/lights", "demo", DEMO_LIGHTS)
    listed = {os.path.realpath(folder) for folder, _ in folders} or {"demo"}
    empty = [folder for folder, _ in folders if os.path.realpath(folder) not in {s["real"] for s in plan["sessions"]}]
    if empty:
        raise WorkflowError(
            f"no lights in {', '.join(empty)}: expected files named .fit, .fits or .fts, also with .gz or .fz behind"
        )
    filters = {os.path.realpath(folder): filter_name for folder, filter_name in folders}
    for session in plan["sessions"]:
        session["listed"] = session["real"] in listed
        session["filter"] = filters.get(session["real"])  # given with the folder; null: the headers say
    first = plan["sessions"][0]
    if not first["listed"]:
        raise WorkflowError(
            f"run {RUN_ID} was started with {first['folder']}: its reference and sky template come from there. "
            "List that folder in input, or use another run_id"
        )
    return plan


PLAN = make_plan()
SESSIONS = {s["id"]: s for s in PLAN["sessions"] if s["listed"]}  # in the order of first appearance
FIRST = next(iter(SESSIONS))


def batches_of(session):
    """Batch ids of one session."""
    return [f"{k + 1:04d}" for k in range(len(SESSIONS[session]["batches"]))]


def lights(wildcards):
    """The raw frames of a batch, for params. As input, a missing one would be passed over where its results exist."""
    session = SESSIONS[wildcards.session]
    names = session["batches"][int(wildcards.batch) - 1]
    return {"folder": session["folder"], "names": names}


def lights_folder(wildcards):
    """Where the lights of a session lie."""
    return SESSIONS[wildcards.session]["folder"]


def of_session(pattern):
    """Input function: the pattern for every batch of the job's session."""
    return lambda wildcards: expand(pattern, session=wildcards.session, batch=batches_of(wildcards.session))


def of_sessions(pattern):
    """The pattern for every session."""
    return expand(pattern, session=SESSIONS)


def of_run(pattern):
    """The pattern for every batch of every session."""
    return [path for session in SESSIONS for path in expand(pattern, session=session, batch=batches_of(session))]


def sessions_so_far(session):
    """The sessions up to and with this one: a job never takes from a later one, so a new night changes no old job."""
    order = list(SESSIONS)
    return order[: order.index(session) + 1]


def of_run_so_far(pattern):
    """Input function: the pattern for every batch of the job's session and of those before it."""
    return lambda wildcards: [
        path for s in sessions_so_far(wildcards.session) for path in expand(pattern, session=s, batch=batches_of(s))
    ]


def before(pattern):
    """Input function: the pattern for every session before the job's own."""
    return lambda wildcards: expand(pattern, session=sessions_so_far(wildcards.session)[:-1])


def so_far(pattern):
    """Input function: the pattern for every session up to and with the job's own."""
    return lambda wildcards: expand(pattern, session=sessions_so_far(wildcards.session))


def shared_cores(n_jobs):
    """Threads of one of so many jobs that may run at once: their share of the cores, at most 8. On a cluster 4, of which a
    job there, which sees the cores of its node, takes what it has."""
    cores = workflow.resource_settings.cores
    if MAIN and cores:
        return min(8, -(-cores // n_jobs))
    return min(4, cores or 4)


def batch_threads(wildcards):
    """Threads of a job that takes a batch."""
    return shared_cores(sum(len(session["batches"]) for session in SESSIONS.values()))


def session_threads(wildcards):
    """Threads of a job that takes a session."""
    return shared_cores(len(SESSIONS))


def template_threads(wildcards):
    """Threads of a session's template of colours: in full mode all but one, by which its clusters are made meanwhile."""
    threads = session_threads(wildcards)
    return threads if isinstance(clustering(wildcards), str) else max(1, threads - 1)


def run_threads(wildcards):
    """Threads of a job that takes the whole run."""
    return shared_cores(1)


def clustering(wildcards):
    """How the frames of the job's session are grouped; or the reason why they are not."""
    return grouping(wildcards.session)


def grouping(session):
    """How the frames of a session are grouped; or the reason why they are not.

    Only lists that are long enough get the keys: else each changed key would make the sums of short runs again.
    """
    options, fewest = config["state_clustering"], config["assumptions"]["frames_reduced_threshold"]
    n_lights = sum(len(batch) for s in sessions_so_far(session) for batch in SESSIONS[s]["batches"])
    if options["enabled"] == "never":
        return "switched_off"
    if options["enabled"] == "auto" and n_lights < fewest:
        return "reduced_mode"
    return {
        "count_range": options["cluster_count_range"],
        "count": options["cluster_count"],
        "weighting": config["synthetic"]["weighting"],
        "fewest": fewest if options["enabled"] == "auto" else 0,
    }


def by_cluster(sessions):
    """Whether the stack takes clusters, those of some of these sessions, otherwise than their frames are added up.

    By default it does not: the mean of clusters by their weights is the mean of all frames, so colours need no sums by
    cluster. Sessions that are one frame each are combined only where a key asks for it.
    """
    stacking = config["stacking"]
    summed = stacking["method"] == "weighted" and stacking["cluster_quality_kappa"] == 0
    if stacking["source"] == "reconstruction" or summed and config["synthetic"]["weighting"] == "tile_weighted":
        return False
    return stacking["source"] == "synthetic" or any(not isinstance(grouping(session), str) for session in sessions)


@functools.cache
def light_mb():
    """Size of the first light that is there, unpacked; of the demonstration's where none is."""
    for session in SESSIONS.values():
        path = Path(session["folder"], session["batches"][0][0])
        if path.is_file():
            return path.stat().st_size / 1e6 * (2 if path.suffix.lower() in (".gz", ".fz") else 1)
    return 1.0


def memory(mb):
    """Memory of a job: so much for lights of 4 MB, more for larger ones (of 48 MB 1.9 times), and by the attempt."""
    return lambda wildcards, attempt: int(mb * (1 + 0.02 * max(light_mb() - 4, 0)) * attempt)


def of_first(pattern):
    """Input function: the pattern for the first session, in jobs of the later ones."""
    return lambda wildcards: [] if wildcards.session == FIRST else expand(pattern, session=FIRST)


def other_run(wildcards):
    """Reference record of the run that registration.reference names as run_id/file, if it does."""
    other, slash, _ = (config["registration"]["reference"] or "").partition("/")
    if not slash:
        return []
    path = Path("runs", other, "work/reference.json")
    if not path.exists():
        raise WorkflowError(f"registration.reference names run {other}, but there is no {path}")
    return [str(path)]


DEMO = [] if config["input"] else ["<run>/lights"]
N_BATCHES = {session: len(batches_of(session)) for session in SESSIONS}
# Folders of aligned frames, where the user wants them.
KEEP_REGISTERED = config["output"]["write_registered_frames"]
REGISTERED = of_run("<run>/outputs/registered/{session}/{batch}") if KEEP_REGISTERED else []
