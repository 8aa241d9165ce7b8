"""Map the coverage of the run: of the canvas, of each tile, of each frame."""

import numpy as np

from tilestack import geometry, job, overlap, records
from tilestack.lattice import tile_range
from tilestack.records import rounded

# Pixels along the edge of a frame that the kernel of the prewarp needs.
RIM_PX = 3


def common_overlap(record_paths, registration_paths, grid_path, out):
    grid = records.read(grid_path)
    prewarped = [records.read(path) for path in record_paths]
    boxes = {(record["session"], entry["file"]): entry for record in prewarped for entry in record["frames"]}
    frames = []
    for path in registration_paths:
        session = records.read(path)
        frames += [{**f, "shape": session["shape"]} for f in session["frames"] if f["transform"] is not None]
    box = geometry.union_box([entry["box"] for entry in boxes.values()])
    tiles = tile_range(box, grid["stride_px"])
    samples = overlap.tile_samples(tiles, grid["stride_px"], grid["tile_px"])
    y0, x0, h, w = box
    on_canvas = (
        (samples[..., 0] >= x0) & (samples[..., 1] >= y0) & (samples[..., 0] < x0 + w) & (samples[..., 1] < y0 + h)
    )
    count = np.zeros(samples.shape[:-1], int)
    for frame in frames:
        count += overlap.inside(np.array(frame["transform"]), frame["shape"], samples, RIM_PX)
    count[~on_canvas] = 0
    area = np.maximum(on_canvas.sum(-1), 1)
    valid, common = (count > 0).sum(-1) / area, (count == len(frames)).sum(-1) / area
    mean_frames = count.sum(-1) / area
    n_points = on_canvas.sum()
    entries = []
    for frame in frames:
        mine = overlap.inside(np.array(frame["transform"]), frame["shape"], samples, RIM_PX) & on_canvas
        entry = boxes[frame["session"], frame["file"]]
        entries.append(
            {
                "file": frame["file"],
                "session": frame["session"],
                "tile_offset_y": entry["box"][0],
                "tile_offset_x": entry["box"][1],
                "box": entry["box"],
                "coverage": entry["coverage"],
                "canvas_share": rounded(mine.sum() / n_points, 4),
            }
        )
    summary = {
        "canvas_px": [h, w],
        "valid_share": rounded((count > 0).sum() / n_points, 4),
        "common_share": rounded((count == len(frames)).sum() / n_points, 4),
        "frames": len(frames),
    }
    records.write(
        out,
        {
            "phase": 7,
            "phase_name": "COMMON_OVERLAP",
            "status": "ok",
            "summary": summary,
            "canvas": box,
            "tiles": {
                "first": tiles[:2],
                "shape": tiles[2:],
                "valid_share": rounded(valid, 4),
                "common_share": rounded(common, 4),
                "mean_frames": rounded(mean_frames, 5),
                # A tile supports the reconstruction where any of its pixels has data.
                "supported": valid > 0,
            },
            "frames": entries,
        },
    )


if __name__ == "__main__":
    with job.started(snakemake):
        common_overlap(
            snakemake.input.records, snakemake.input.registrations, snakemake.input.grid, snakemake.output[0]
        )
