"""Which run and which configuration: schema defaults < the run's config.yaml < this command line.

config/config.yaml stands in for the run's own file as long as the run does not exist.
"""

import difflib
import gc
import json
import os
import re
import tempfile
from pathlib import Path

import yaml
from snakemake.logging import logger
from snakemake.utils import update_config, validate

gc.freeze()  # what is imported stays: looks for garbage in it took 0.3 s
MAIN = workflow.is_main_process  # False in a job that a cluster started
GIVEN = workflow.config_settings.overwrite_config  # --configfile and --config of this command, nothing else


def loaded(text):
    """What a text in YAML says; the loader in Python would take 0.06 s for the schema."""
    return yaml.load(text, Loader=yaml.CSafeLoader)


SCHEMA = loaded(Path(workflow.basedir, "config/schema.yaml").read_text())
TEMPLATE = loaded(Path(workflow.basedir, "config/config.yaml").read_text()) or {}


def node_cache():
    """Folder on the node's own disk for compiled kernels, which nobody else can write to: what is in it gets executed."""
    folder = Path(tempfile.gettempdir(), f"tilestack-numba-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise WorkflowError(f"{folder} belongs to another user: set NUMBA_CACHE_DIR to a folder of your own")
    return str(folder)


if not MAIN:
    os.environ.setdefault("NUMBA_CACHE_DIR", node_cache())
# glibc gives each large array back when it is freed and has the next one zeroed anew: of 24 MP frames a third of the
# time went to the kernel for that. So jobs keep what they had, which makes them up to 0.4 GB larger.
os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 40))
# And from one heap for all threads: the others are parts of 64 MB that go back to the kernel whenever one is empty.
os.environ.setdefault("MALLOC_ARENA_MAX", "1")


def checked_run_id(run_id):
    """The run's id, refused where it could name another folder than the one that was typed."""
    if not isinstance(run_id, str) or run_id.isdigit():
        raise WorkflowError(
            f"run_id must hold at least one letter or hyphen, got {run_id!r}: --config reads 007 as the number 7 and "
            "2024_05 as 202405, so two ids could name one run. Write it as night-007 or 2024-05"
        )
    pattern = SCHEMA["properties"]["run_id"]["pattern"]
    if not re.fullmatch(pattern, run_id):
        raise WorkflowError(f"run_id must match {pattern}, got {run_id!r}")
    return run_id


def kinds(schema):
    """Names of the types that a schema allows."""
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else kind


def typed(value, schema):
    """A copy in the schema's types: --config leaves nested numbers and true/false as text."""
    if value is None:  # --config key=
        return None
    for choice in schema.get("anyOf", ()):
        if isinstance(value, dict) == ("object" in kinds(choice)):
            schema = {**choice, **{key: item for key, item in schema.items() if key != "anyOf"}}
    kind = [name for name in kinds(schema) if name != "null"]
    if isinstance(value, dict):
        return {key: typed(item, schema.get("properties", {}).get(key, {})) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item, schema.get("items", {})) for item in value]
    if kind == ["array"]:  # --config input=lights
        return [typed(value, schema["items"])]
    if kind == ["string"]:
        return None if value == "null" and "null" in kinds(schema) else str(value)
    if kind == ["number"] and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", str(value), re.IGNORECASE):
        return float(value)  # YAML 1.1 takes 1e-3 for text
    if isinstance(value, str) and kind in (["integer"], ["number"], ["boolean"]):
        return loaded(value)
    return value


def absolute(entry):
    """An entry of `input` with a folder that holds from any working folder."""
    if isinstance(entry, dict):
        return {**entry, "path": absolute(entry["path"])} if isinstance(entry.get("path"), str) else entry
    return os.path.abspath(os.path.expanduser(entry))


def normalized(settings):
    """A copy in the schema's types, with input folders that hold from any working folder."""
    settings = typed(settings, SCHEMA)
    if settings.get("input"):
        settings["input"] = [absolute(entry) for entry in settings["input"]]
    return settings


def in_order(settings):
    """A copy with sorted keys, as in the written file: Snakemake takes another order of a dict for other params."""
    if isinstance(settings, dict):
        return {key: in_order(settings[key]) for key in sorted(settings)}
    return settings


def flat(settings, above=""):
    """Nested keys on one level: {"pcc": {"white": "G2V"}} as {"pcc.white": "G2V"}."""
    leaves = {}
    for key, value in settings.items():
        leaves |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return leaves


def known_keys(schema, above=""):
    """All keys of the schema, on one level, the sections among them."""
    keys = []
    for key, item in schema.get("properties", {}).items():
        keys += [above + key, *known_keys(item, f"{above}{key}.")]
    return keys


def check_keys(settings, schema=SCHEMA, above=""):
    """Stop at a key that the schema does not know, with the nearest that it does."""
    for key, value in settings.items():
        if key not in schema["properties"]:
            near = difflib.get_close_matches(above + str(key), known_keys(SCHEMA), 1, 0.5)
            hint = f": did you mean {near[0]}?" if near else ""
            raise WorkflowError(f"unknown configuration key {above}{key}{hint} All keys are in docs/configuration.md")
        inner = schema["properties"][key]
        if "properties" in inner and isinstance(value, dict):
            check_keys(value, inner, f"{above}{key}.")


def check_config(settings):
    """What a schema cannot say."""
    few, many = settings["state_clustering"]["cluster_count_range"]
    if few > many:
        raise WorkflowError(f"state_clustering.cluster_count_range must rise, got [{few}, {many}]")
    smallest, largest = settings["tile"]["min_px"], settings["tile"]["max_px"]
    if smallest > largest:
        raise WorkflowError(f"tile.min_px must not exceed tile.max_px, got {smallest} and {largest}")


RUN_ID = checked_run_id(GIVEN.get("run_id", TEMPLATE.get("run_id", SCHEMA["properties"]["run_id"]["default"])))
RUN = f"runs/{RUN_ID}"
SNAPSHOT, PLAN_FILE = Path(RUN, "config.yaml"), Path(RUN, "plan.json")
# What this start was decided on; onstart compares it with the disk once it holds the run's lock.
AS_READ = {path: path.read_text() if path.exists() else "" for path in (SNAPSHOT, PLAN_FILE)}
RECORDED = loaded(AS_READ[SNAPSHOT]) or {}

settled = normalized(RECORDED or TEMPLATE)
if MAIN:  # a cluster job gets this command's keys too, but the main process has settled and written them
    update_config(settled, normalized(GIVEN))
settled["run_id"] = RUN_ID
check_keys(settled)
config.clear()
config.update(settled)
validate(config, f"{workflow.basedir}/config/schema.yaml")
check_config(config)
settled = in_order(dict(config))
config.clear()
config.update(settled)
CONFIG_CHANGED = dict(config) != RECORDED

if MAIN and RECORDED:
    template = flat(normalized(TEMPLATE))
    not_used = {key for key, value in template.items() if flat(config).get(key) != value} - {"run_id", *flat(GIVEN)}
    if not_used:
        logger.info(f"config/config.yaml differs from {SNAPSHOT} in {', '.join(sorted(not_used))}: the run's own hold")
    if config["demonstration"] != RECORDED.get("demonstration", config["demonstration"]):
        raise WorkflowError(f"run {RUN_ID} has its demonstration lights already: for another series use another run_id")
