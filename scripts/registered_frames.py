"""Write the aligned frames of a batch as FITS files on the canvas of the run, for use in other programs."""

from pathlib import Path

import numpy as np
from astropy.io import fits

from tilestack import files, job, prewarped, records


def registered_frames(paths, folder):
    """paths: image and record of the batch, registration, overlap, channels."""
    canvas = tuple(records.read(paths["overlap"])["canvas"])
    entries = records.read(paths["record"])["frames"]
    registered = {frame["file"]: frame for frame in records.read(paths["registration"])["frames"]}
    pattern = records.read(paths["channels"])["bayer_pattern"]
    Path(folder).mkdir(parents=True, exist_ok=True)
    frames = prewarped.Frames([(paths["image"], entries)])
    for k, entry in enumerate(entries):
        codes = frames.rows(k, canvas)
        image = np.where(codes == prewarped.NO_DATA, np.nan, entry["zero"] + entry["scale"] * codes.astype(float))
        frame = registered[entry["file"]]
        cards = {
            "EXPTIME": frame["exposure_s"],
            "DATE-OBS": frame["date_obs"],
            "FILTER": frame["filter"],
            "BAYERPAT": pattern,
            "METHOD": (frame["method"], "how the frame was registered"),
            "LATTY0": (canvas[0], "lattice row of the first row"),
            "LATTX0": (canvas[1], "lattice column of the first column"),
            "BUNIT": "adu",
        }
        hdu = fits.PrimaryHDU(image.astype(np.float32))
        hdu.header.update(files.checked(cards))
        name = entry["file"].removesuffix(".gz").removesuffix(".fz")
        with files.replacing(Path(folder, Path(name).with_suffix(".fits"))) as draft:
            hdu.writeto(draft)


if __name__ == "__main__":
    with job.started(snakemake):
        registered_frames(dict(snakemake.input.items()), snakemake.output[0])
