"""End the run with an error where a check failed: for validation.strict, after all products are in place."""

from tilestack import job, records


def verdict(validation_path):
    failed = [entry for entry in records.read(validation_path)["checks"] if not entry["ok"]]
    if failed:
        listing = "; ".join(
            f"{entry['name']} {entry['value']} beyond {entry['threshold']}. {entry['advice']}" for entry in failed
        )
        raise job.Stop("validation_failed", listing, "validation_failed")


if __name__ == "__main__":
    with job.started(snakemake):
        verdict(snakemake.input.validation)
