"""Final status of the run: what it made, with checksums."""

import hashlib
from pathlib import Path

from tilestack import job, records


def done(product_paths, record_paths, validation_path, out, *, run_folder):
    products = []
    for path in product_paths:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        products.append(
            {"path": str(Path(path).relative_to(run_folder)), "bytes": Path(path).stat().st_size, "sha256": digest}
        )
    phases = [records.read(path) for path in record_paths]
    validation = records.read(validation_path)
    records.write(
        out,
        {
            "phase": 17,
            "phase_name": "DONE",
            "status": validation["status"],
            "reason": validation["reason"],
            "summary": {"products": len(products)},
            "phases": [{key: phase[key] for key in ("phase", "phase_name", "status")} for phase in phases],
            "products": products,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        done(
            snakemake.input.products,
            snakemake.input.records,
            snakemake.input.validation,
            snakemake.output[0],
            run_folder=snakemake.params.run_folder,
        )
