#!/usr/bin/env python3
"""Print docs/configuration.md: every key of the configuration, from its schema."""

from pathlib import Path

import yaml

SCHEMA = Path(__file__).resolve().parents[1] / "config/schema.yaml"
HEAD = """# Configuration

Made from `config/schema.yaml` by `make docs`; do not edit. Give keys on the command line
(`--config run_id=m31 'tile_reconstruction={kappa: 5}'`), in a file (`--configfile mine.yaml`), or in the run's own
`runs/<run_id>/config.yaml`. `config/config.yaml` is read for new runs only.

| key | default | values | what it does |
|---|---|---|---|"""


def values(schema):
    """Allowed values in words."""
    if "anyOf" in schema:
        return " or ".join(values(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema["type"]
    kinds = [kind] if isinstance(kind, str) else kind
    words = [{"null": "null", "boolean": "true or false", "array": "list"}.get(name, name) for name in kinds]
    bounds = {"minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}"}
    limits = [text.format(schema[key]) for key, text in bounds.items() if key in schema]
    return " or ".join(words) + (f", {', '.join(limits)}" if limits else "")


def rows(schema, above=""):
    """A line of the table for each key below a schema."""
    for key, item in schema["properties"].items():
        if "properties" in item:
            yield from rows(item, f"{above}{key}.")
        else:
            default = yaml.safe_dump(item["default"], default_flow_style=True).splitlines()[0]
            yield f"| `{above}{key}` | `{default}` | {values(item)} | {item['description']} |"


if __name__ == "__main__":
    print(HEAD)
    print("\n".join(rows(yaml.safe_load(SCHEMA.read_text()))))
