"""Choose the reference frame, from the first session only, so that it never changes."""

from tilestack import job, records
from tilestack import reference as references


def reference(stars_paths, out, *, wanted, other_path):
    """stars_paths: by batch id, the star records of the first session."""
    batches = {batch: records.read(path) for batch, path in stars_paths.items()}
    other = records.read(other_path) if other_path else None
    records.write(out, references.choose(batches, wanted, other))


if __name__ == "__main__":
    with job.started(snakemake):
        reference(
            dict(zip(snakemake.params.batches, snakemake.input.stars, strict=True)),
            snakemake.output[0],
            wanted=snakemake.params.wanted,
            other_path=next(iter(snakemake.input.get("other", [])), None),
        )
