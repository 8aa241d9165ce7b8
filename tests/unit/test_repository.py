"""What the repository promises of its own files."""

import ast
import re
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
import yaml

import skycatalogue
from support import ROOT


def pins(lock="requirements.lock"):
    """Name: version of a lock, of the lines that hold for Python 3.11 on Linux."""
    found = {}
    for line in (ROOT / lock).read_text().splitlines():
        pin, _, marker = line.partition(" ; ")
        name, version = pin.split("==")
        if not re.search(r"python_full_version >= '3\.1[2-9]|sys_platform == 'win32'", marker):
            found[name] = version
    return found


def test_lock__holds_names_and_versions_only():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9._-]+==[a-zA-Z0-9.+!]+( ; .+)?", line), line
        assert "://" not in line


def test_slurm_lock__has_the_pins_of_the_lock():
    both = pins("requirements.lock"), pins("requirements-slurm.lock")
    assert "snakemake-executor-plugin-slurm" in both[1]
    assert {name: both[0][name] for name in both[0].keys() & both[1].keys()}.items() <= both[1].items()


def test_environment__has_the_pins_of_the_lock():
    locked = pins()
    for path in (ROOT / "envs").glob("*.yaml"):
        wanted = yaml.safe_load(path.read_text())["dependencies"]
        wanted += [pin for entry in wanted if isinstance(entry, dict) for pin in entry["pip"]]
        for entry in wanted:
            if not isinstance(entry, dict) and entry != "pip":
                name, version = entry.replace(" ", "").split("=")[0], entry.split("=")[-1]
                if name != "python":
                    assert locked[name.removesuffix("-base")] == version, name


def test_configuration_page__is_that_of_the_schema():
    done = subprocess.run(
        [sys.executable, ROOT / "docs/make_configuration.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout == (ROOT / "docs/configuration.md").read_text(), "run: make docs"


def leaves(schema, above=""):
    for key, item in schema.get("properties", {}).items():
        yield above + key, item
        yield from leaves(item, f"{above}{key}.")


def test_configuration_schema__describes_every_key_and_closes_every_section():
    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, item in leaves(schema):
        if "properties" in item:
            assert item["additionalProperties"] is False and item.get("default") == {}, name
        else:
            assert item.get("description"), name
            assert "default" in item and ({"type", "enum", "anyOf"} & item.keys()), name
            jsonschema.validate(item["default"], item)
            if item.get("type") in ("number", "integer"):
                assert {"minimum", "exclusiveMinimum"} & item.keys(), name


@pytest.mark.parametrize("path", sorted((ROOT / "config/artifacts").glob("*.yaml")), ids=lambda path: path.stem)
def test_artifact_schemas__are_valid(path):
    jsonschema.Draft202012Validator.check_schema(yaml.safe_load(path.read_text()))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_simulator__imports_nothing_of_the_package_that_processes_frames():
    for path in [ROOT / "scripts/simulate_lights.py", *(ROOT / "scripts/simulation").glob("*.py")]:
        assert not [name for name in imports(path) if name.startswith("tilestack")], path


def test_kernels__call_no_other_kernel_module():
    # Of `ahead` kernels take an instruction: after an edit of it, as of the decorators, caches are to be deleted.
    decorators = {"tilestack.kernels", "tilestack.kernels.entry", "tilestack.kernels.part"}
    instructions = {f"tilestack.kernels.ahead{name}" for name in ("", ".fetch", ".prefetch")}
    for path in (ROOT / "scripts/tilestack/kernels").glob("*.py"):
        assert not {name for name in imports(path) if name.startswith("tilestack")} - decorators - instructions, path
        assert "fastmath=True" not in path.read_text()


# Jobs that gather tables: a job costs its imports before it does anything.
LEAN = (
    "scan_input reference channel_split tile_grid normalization_summary registration_summary global_metrics "
    "global_metrics_summary common_overlap local_metrics_summary session_clusters state_clustering synthetic_frames "
    "verdict done"
).split()


@pytest.mark.parametrize("script", LEAN)
def test_gather_jobs__import_neither_numba_nor_astropy_nor_scipy(script):
    code = f"import sys; sys.path.insert(0, 'scripts'); import {script}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numba", "astropy", "scipy", "matplotlib", "sep"} & set(ast.literal_eval(done.stdout))


def test_catalogue__is_small_and_a_cone_is_a_part_of_a_larger_one():
    assert skycatalogue.CATALOGUE.stat().st_size < 40e6
    for ra, dec in ((192.72, 41.12), (0.02, -0.3), (359.99, 60), (75, 89.7), (120, -89.9)):
        small, large = skycatalogue.cone(ra, dec, 0.6), skycatalogue.cone(ra, dec, 1.5)
        assert (np.diff(small["vt"]) >= 0).all()
        a, d = np.radians(large["ra_deg"] - ra), np.radians(large["dec_deg"])
        cosine = np.sin(d) * np.sin(np.radians(dec)) + np.cos(d) * np.cos(np.radians(dec)) * np.cos(a)
        inside = cosine >= np.cos(np.radians(0.6))
        assert sorted(large["ra_deg"][inside]) == sorted(small["ra_deg"])


def test_catalogue__has_bright_stars_where_they_are():
    # Barnard's star: its motion of 10.4" a year is the largest (SIMBAD, J2000 and epoch 2020).
    at_2000 = skycatalogue.cone(269.4521, 4.6934, 0.01)
    at_2020 = skycatalogue.cone(269.4521, 4.6934, 0.01, year=2020.0)
    assert at_2000["vt"][0] == pytest.approx(9.8, abs=0.3)
    moved = (at_2020["dec_deg"][0] - at_2000["dec_deg"][0]) * 3600
    assert moved == pytest.approx(10.33 * 20, rel=0.01)


def test_catalogue__refuses_places_that_are_not_on_the_sky():
    with pytest.raises(ValueError, match="91"):
        skycatalogue.cone(10, 91, 1)
