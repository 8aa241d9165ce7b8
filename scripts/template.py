"""Add the session's layer to the sky template."""

import numpy as np

from tilestack import job, records
from tilestack import template as templates


def template(paths, image_path, record_path, *, template_frames, n_threads=1):
    """paths: normalization, reference; images and records, one of each for each batch; layers before."""
    grid = records.read(paths["reference"])["lattice"]
    normalized = {frame["file"]: frame for frame in records.read(paths["normalization"])["frames"]}
    files = list(normalized)
    fwhm = np.array([frame["fwhm_px"] for frame in normalized.values()], float)
    places, wanted = templates.by_sharpness(fwhm, template_frames)
    order = [files[k] for k in places]
    images = [
        (image, [entry for entry in records.read(record)["frames"] if entry["file"] in order])
        for image, record in zip(paths["images"], paths["records"], strict=True)
    ]
    layer = templates.write_layer(image_path, images, order, wanted, normalized, grid, n_threads)
    records.write(record_path, {**layer, **merged_mesh(layer, [records.read(path) for path in paths["layers"]][-1:])})


def merged_mesh(layer, before):
    """Sky mesh of all layers: cells of earlier ones first."""
    own = np.array(layer["sky"], float)
    if not before:
        return {}
    old = np.array(before[0]["sky"], float)
    origins = [layer["mesh_origin"], before[0]["mesh_origin"]]
    first = [min(a, b) for a, b in zip(*origins, strict=True)]
    size = [max(o[k] + m.shape[k + 1] for o, m in zip(origins, (own, old), strict=True)) - first[k] for k in (0, 1)]
    whole = np.full((len(own), *size), np.nan)
    for origin, mesh in zip(origins, (own, old), strict=True):  # the older one last: it counts
        j, i = origin[0] - first[0], origin[1] - first[1]
        part = whole[:, j : j + mesh.shape[1], i : i + mesh.shape[2]]
        part[:] = np.where(np.isfinite(mesh), mesh, part)
    return {"sky": records.rounded(whole), "mesh_origin": first}


if __name__ == "__main__":
    with job.started(snakemake):
        inputs = snakemake.input
        paths = {key: inputs[key] for key in ("normalization", "reference")}
        paths |= {key: list(inputs.get(key, [])) for key in ("images", "records", "layers")}
        template(
            paths,
            snakemake.output.image,
            snakemake.output.record,
            template_frames=snakemake.params.template_frames,
            n_threads=snakemake.threads,
        )
