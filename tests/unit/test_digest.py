import ast
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"


@pytest.fixture(scope="module")
def digest():
    names = {"workflow": types.SimpleNamespace(basedir=ROOT)}
    exec((ROOT / "rules/digest.smk").read_text(encoding="utf-8"), names)
    return names


def parsed(path):
    """Files below scripts/ that one file imports, by Python's own parser."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            here = path.relative_to(SCRIPTS).parts[: -node.level] if node.level else ()
            above = [*here, *(node.module or "").split(".")]
            found |= {SCRIPTS.joinpath(*above), *(SCRIPTS.joinpath(*above, name.name) for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {SCRIPTS.joinpath(*name.name.split(".")) for name in node.names}
    return {file for stem in found for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.exists()}


def test_imports_of__misses_no_import(digest):
    # An import that is missed would leave old files as they are when what is imported changes.
    paths = sorted(SCRIPTS.rglob("*.py"))
    assert sum(len(parsed(path)) for path in paths) > len(paths) > 100
    for path in paths:
        assert parsed(path) <= digest["imports_of"](path), path


def test_imports_of__reaches_what_is_imported_in_turn_and_no_more(digest):
    kernel = SCRIPTS / "tilestack/kernels/drizzle.py"
    reached, todo = set(), {SCRIPTS / "reconstruct_batch.py"}
    while todo:
        reached |= todo
        todo = {file for path in todo for file in digest["imports_of"](path)} - reached
    assert kernel in reached and SCRIPTS / "tilestack/__init__.py" in reached
    assert SCRIPTS / "tilestack/platesolve.py" not in reached
