"""Files of stacks (tilestack/stackfiles.py). Means know no clusters: those of the reconstruction are those of all."""

import types

from snakemake.dag import DAG

HALVES = ["image", "even", "odd"]
RECONSTRUCTION_RGB = [*HALVES, "plain_mean"]
RECONSTRUCTION = [*RECONSTRUCTION_RGB, "inverse_variance"]


def stack_files(folder, names, key="{}"):
    """Paths of the files of a stack, by keys made of their names."""
    return {key.format(name): f"{folder}/{name}.fits" for name in names}


def passed_on(folder, names, key):
    """The same as input of what gives them second names. With each they become as new as its other output, so their
    time says nothing; the record that is made with them says whether they were made again."""
    return {name: ancient(path) for name, path in stack_files(folder, names, key).items()}


def of_time(check):
    """Snakemake's check of times after a job, without input whose time says nothing: Snakemake has just made all output
    as new as now, one file after the other, so of two second names one may be older than the other's first name."""

    async def check_output_mtime(self, job, outputs):
        timed = types.SimpleNamespace(input=[file for file in job.input if not file.is_ancient], rule=job.rule)
        await check(self, timed, outputs)

    check_output_mtime.timed = True
    return check_output_mtime


if not hasattr(DAG.check_output_mtime, "timed"):
    DAG.check_output_mtime = of_time(DAG.check_output_mtime)
