#!/usr/bin/env python3
"""Make a simulated series of lights of a real star field, with the truth behind it.

simulate_lights.py lights --n-frames 60 --height-px 1920 --width-px 1080 --seed 7 --mono
"""

import argparse
from dataclasses import fields

from simulation import series
from simulation.options import Options


def simulate_lights(folder, **settings):
    """Write a series into a folder; settings are those of ``simulation.options.Options``."""
    series.write(Options(**settings), folder)


def from_command_line():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", help="where the lights go; truth lies in its sub-folder truth")
    parser.add_argument("--mono", action="store_true", help="mono lights instead of a Bayer mosaic")
    for field in fields(Options):
        name = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default, help=" ")
        else:
            kind = str if field.name == "pattern" else type(field.default)
            parser.add_argument(name, type=kind, default=field.default, help=" ")
    given = vars(parser.parse_args())
    if given.pop("mono"):
        given["pattern"] = None
    simulate_lights(given.pop("folder"), **given)


if __name__ == "__main__":
    if "snakemake" in globals():
        simulate_lights(snakemake.output[0], **snakemake.params.options)
    else:
        from_command_line()
