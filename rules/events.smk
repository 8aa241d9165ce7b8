"""The run's lock, its written configuration and plan, its timeline logs/run_events.jsonl, and the progress on the terminal.

All of it hangs on onstart, which runs in the main process of a real run only: not in dry runs, not in cluster jobs.
"""

import datetime
import fcntl
import logging
import shutil
import sys
import threading
import time

PHASES = {  # name: its rules; the position is the phase number
    "SCAN_INPUT": ["demo_lights", "scan_frames", "scan_input"],
    "REGISTRATION": ["detect_stars", "reference", "registration", "registration_summary"],
    "PREWARP": ["prewarp"],
    "CHANNEL_SPLIT": ["channel_split"],
    "NORMALIZATION": ["normalization", "template", "normalization_summary"],
    "GLOBAL_METRICS": ["global_metrics", "global_metrics_summary"],
    "TILE_GRID": ["tile_grid"],
    "COMMON_OVERLAP": ["common_overlap", "registered_frames"],
    "LOCAL_METRICS": ["local_metrics", "local_weights", "local_metrics_summary"],
    "TILE_RECONSTRUCTION": ["colour_template", "reconstruct_batch", "tile_reconstruction"],
    "STATE_CLUSTERING": ["session_clusters", "state_clustering"],
    "SYNTHETIC_FRAMES": ["session_synthetic", "synthetic_frames"],
    "STACKING": ["synthetic_stack", "stacking", "validation"],
    "DEBAYER": ["debayer"],
    "ASTROMETRY": ["astrometry", "sky_headers"],
    "BGE": ["bge"],
    "PCC": ["pcc"],
    "DONE": ["done", "report", "verdict"],
}
PHASE_OF = {member: (number, name) for number, (name, members) in enumerate(PHASES.items()) for member in members}
EVENTS = Path(RUN, "logs/run_events.jsonl")
# Rough CPU seconds of a job that takes a batch, a frame; for the time left on the terminal, nothing else.
BATCH_COST_S = {
    "scan_frames": 0.05,
    "detect_stars": 0.1,
    "prewarp": 0.15,
    "local_metrics": 0.1,
    "reconstruct_batch": 0.3,
}


def event(kind, phase=None, **fields):
    """Append one line to the timeline."""
    where = dict(zip(("phase", "phase_name"), phase)) if phase else {}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    with open(EVENTS, "a") as stream:
        stream.write(json.dumps({"ts": now, "run_id": RUN_ID, "type": kind, **where, **fields}) + "\n")


def artifact(phase_name):
    """The artifact of a phase, that of STACKING with what its validation says; nothing of one that has none."""
    names = {"STACKING": ("stacking", "validation")}.get(phase_name, (phase_name.lower(),))
    paths = [path for name in names for path in [Path(RUN, f"artifacts/{name}.json")] if path.exists()]
    read = [json.loads(path.read_text()) for path in paths]
    summary = {key: value for record in read for key, value in record.get("summary", {}).items()}
    return {key: value for record in read for key, value in record.items()} | {"summary": summary}


def disk_is_full():
    return shutil.disk_usage(".").free < 1e6


def refusal(since, failed, disk_was_full):
    """Why a job of this start refused to go on: the newest reason that one left in its log; without one, who failed."""
    # Snakemake makes the log files of a job before it runs, and the job keeps room in its own: those tell nothing.
    logs = [path for path in Path(RUN, "logs").rglob("*.reason.json") if path.stat().st_mtime >= since]
    reasons = [path for path in logs if path.read_text().strip()]
    newest = max(reasons, key=lambda path: path.stat().st_mtime, default=None)
    if newest:
        return json.loads(newest.read_text())
    if disk_was_full or disk_is_full():
        message = f"the disk of {RUN} is full: free space and start again"
        return {"status": "insufficient_disk_space", "reason": "disk_full", "message": message}
    if failed:
        message = f"{' and '.join(sorted(failed))} ended without a word, as jobs do that are killed: start again"
        return {"status": "error", "reason": "job_failed", "message": message}
    return {"status": "error", "reason": "interrupted", "message": "stopped before its end: start again"}


def plain_line(record):
    """Whether a log record of Snakemake is shown: all but those that the lines of Timeline stand for."""
    kind = str(getattr(record, "event", "")).split(".")[-1].lower()
    quiet = kind in ("job_started", "job_finished", "progress")
    return not quiet and record.getMessage() != "Select jobs to execute..."


class Timeline(logging.Handler):
    """Turns Snakemake's log records about jobs into events about phases, and into lines on the terminal."""

    def __init__(self, jobs):
        super().__init__()
        self.begun_at = time.time()
        self.rule_of, self.begun, self.failed, self.disk_was_full = {}, set(), {}, False
        self.jobs_left, self.cost = {}, {}
        for job in jobs:
            phase = PHASE_OF[job.rule.name]
            self.jobs_left[phase] = self.jobs_left.get(phase, 0) + 1
            n_lights = len(dict(job.params.items()).get("lights", {"names": ()})["names"])
            self.cost[job.jobid] = 1 + n_lights * BATCH_COST_S.get(job.rule.name, 0)
        self.jobs_of = dict(self.jobs_left)
        self.total, self.done = sum(self.cost.values()), 0.0

    def emit(self, record):
        kind = str(getattr(record, "event", "")).split(".")[-1].lower()
        if kind == "job_info":
            self.rule_of[record.jobid] = record.rule_name
        # Only job_info names the rule; the others carry an id, which is spelled job_id or jobid.
        job = getattr(record, "job_id", getattr(record, "jobid", None))
        phase = PHASE_OF.get(self.rule_of.get(job))
        if phase is None:
            return
        if kind == "job_info" and phase not in self.begun:
            self.begun.add(phase)
            event("phase_start", phase)
            self.show(phase, "started")
        elif kind == "job_finished":
            self.jobs_left[phase] -= 1
            self.done += self.cost.get(job, 0)
            if self.jobs_left[phase]:
                event("phase_progress", phase, jobs_left=self.jobs_left[phase])
                self.show(phase, f"{self.jobs_of[phase] - self.jobs_left[phase]} of {self.jobs_of[phase]} jobs")
            else:
                record = artifact(phase[1])
                for code, count in {**record.get("warnings", {}), **record.get("reasons", {})}.items():
                    event("warning", phase, code=code, count=count)
                    self.show(phase, f"warning: {code} ({count})")
                status = record.get("status", "ok")
                event("phase_end", phase, **{"status": status, **record.get("summary", {})})
                self.show(phase, status)
        elif kind == "job_error" and phase not in self.failed:
            # Now: Snakemake deletes the outputs of a failed job next.
            self.disk_was_full |= disk_is_full()
            self.failed[phase] = self.rule_of[job]
            event("phase_end", phase, status="error", rule=self.rule_of[job])
            self.show(phase, f"error in {self.rule_of[job]}")

    def show(self, phase, what):
        """One line on the terminal: share done, phase, time left by the jobs' expected cost."""
        share = self.done / self.total
        left = (time.time() - self.begun_at) * (1 - share) / share if share > 0.05 else None
        tail = f", about {left / 60:.0f}:{left % 60:02.0f} left" if left and share < 1 else ""
        print(f"{RUN_ID} {share:4.0%}  {phase[1]} {what}{tail}", file=sys.stderr, flush=True)


def lock_run():
    """Hold the run until this process ends, however it ends: the kernel drops a flock with its process."""
    stream = open(Path(RUN, ".lock"), "a")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(f"run {RUN_ID} is being processed by another snakemake: wait for it, or use another run_id")
    except OSError as error:
        raise WorkflowError(f"{RUN} lies on a file system that cannot lock files ({error}): use another --directory")
    if AS_READ != {path: path.read_text() if path.exists() else "" for path in AS_READ}:
        raise WorkflowError(f"run {RUN_ID} was changed by another snakemake during the start: start again")
    return stream


def wait_for_jobs():
    """Wait until the jobs of a killed start have ended: each holds a shared lock (job.py), and might still write."""
    with open(Path(RUN, ".jobs"), "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{RUN_ID} waits for jobs of the start before, which was killed", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)


def sweep():
    """Delete what killed jobs left half-written; no job of this run is alive. Date back files from the future, made while
    a clock was wrong: Snakemake fails each job whose output is older than its input."""
    now = time.time()
    for path in Path(RUN).rglob("*"):
        if re.fullmatch(r".+\.[0-9]+\.tmp", path.name):
            path.unlink()
        elif path.lstat().st_mtime > now + 1:
            os.utime(path, (now, now), follow_symlinks=False)


def replace(path, text):
    """Write a file in one step: readers see the old one or the new one."""
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    os.replace(draft, path)


onstart:
    global LOCK, TIMELINE
    if disk_is_full():
        raise WorkflowError(f"the disk of {os.getcwd()} is full: free space and start again")
    EVENTS.parent.mkdir(parents=True, exist_ok=True)
    LOCK = lock_run()  # global: closing the file would drop the lock
    # Jobs inherit the name of their start, also through Slurm; job.py ends those that a killed one left in a queue.
    this_start = f"{os.uname().nodename} {os.getpid()} {time.time()}"
    os.environ.update(TILESTACK_START=this_start)
    LOCK.truncate(0)
    LOCK.write(this_start)
    LOCK.flush()
    wait_for_jobs()
    sweep()
    if CONFIG_CHANGED:
        if RECORDED:
            revisions = len(list(SNAPSHOT.parent.glob("config.*.yaml")))
            shutil.copy2(SNAPSHOT, SNAPSHOT.with_name(f"config.{revisions + 1:03d}.yaml"))
        replace(SNAPSHOT, yaml.safe_dump(dict(config)))
    replace(PLAN_FILE, json.dumps(PLAN, indent=1))
    told = EVENTS.read_text() if EVENTS.exists() else ""
    if told and not told.endswith("\n"):  # a line that a kill cut short ends here
        with open(EVENTS, "a") as stream:
            stream.write("\n")
    lines = told.splitlines()
    if lines and '"type": "run_end"' not in lines[-1]:
        event("run_end", status="aborted")  # the last run was killed before it could say so
    TIMELINE = Timeline([job for job in workflow.dag.needrun_jobs() if job.rule.name in PHASE_OF])
    phases = {name: TIMELINE.jobs_of[phase] for phase in sorted(TIMELINE.jobs_of) for name in [phase[1]]}
    n_lights = sum(len(batch) for session in SESSIONS.values() for batch in session["batches"])
    event("run_start", frames_discovered=n_lights, sessions=len(SESSIONS), jobs=phases)
    if not workflow.output_settings.verbose:
        for handler in logger.handlers:
            handler.addFilter(plain_line)
    logger.addHandler(TIMELINE)


def forget_timers():
    """What Snakemake set to look for further jobs, a second after the last ones: it would wait for it before it ends."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


onsuccess:
    forget_timers()
    status_file = Path(RUN, "artifacts/run_status.json")
    event("run_end", status=json.loads(status_file.read_text())["status"] if status_file.exists() else "ok")
    print(f"{RUN_ID} done: {RUN}/outputs", file=sys.stderr)


onerror:
    forget_timers()
    why = refusal(TIMELINE.begun_at, TIMELINE.failed.values(), TIMELINE.disk_was_full)
    event("run_end", **why)
    print(f"{RUN_ID} stopped ({why['status']}) {why['message']}", file=sys.stderr)
