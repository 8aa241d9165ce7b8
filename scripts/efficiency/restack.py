"""The stack of a finished run once more: from other lights, or with something changed, in a folder of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import reconstruct_batch as reconstruct
import template as templates
import tile_reconstruction as reconstruction
import yaml

from tilestack import files, lights, prewarp, records


class Run:
    """Records of a finished run.

    Parameters
    ----------
    folder : path
        ``runs/<run_id>``; with its prewarped frames where the stack is made again with nothing added.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.config = yaml.safe_load((self.folder / "config.yaml").read_text())
        plan = json.loads((self.folder / "plan.json").read_text())
        self.sessions = {s["id"]: s for s in plan["sessions"] if s["listed"]}
        self.reference = self.record("work/reference.json")
        self.lattice = self.reference["lattice"]

    def record(self, path):
        return records.read(self.folder / path)

    def batches(self, session):
        return [f"{k + 1:04d}" for k in range(len(self.sessions[session]["batches"]))]

    def frames(self, session):
        """Entries of the registration record with a place on the lattice."""
        return [f for f in self.record(f"work/registration/{session}.json")["frames"] if f["transform"] is not None]


def planes(path):
    """Planes of a reconstruction: name -> (h, w) array."""
    with files.opened(path) as hdus:
        return {hdu.name: files.native(hdu.data[0]) for hdu in hdus[1:]}


def restack(run, out, *, added=None, moved=None, changed=None, halves=None, options=None):
    """Make prewarped frames, template, sums and reconstruction again, with the run's own records.

    Parameters
    ----------
    run : Run
    out : path
        New folder for what is made; deleted first.
    added : callable, optional
        ``added(session, frame, image)`` gives the light that is added to a raw frame: (h, w) float32, ADU.
    moved : callable, optional
        ``moved(session, frame)`` gives the transform to use for a frame.
    changed : callable, optional
        ``changed(session, fields)`` changes the weight fields, a dict of arrays by name, in place.
    halves : callable, optional
        ``halves(index)`` says which half the frame of this number in its session belongs to, 0 or 1.
    options : dict, optional
        Instead of keys of ``tile_reconstruction`` in the configuration.

    Returns
    -------
    dict
        Planes of the reconstruction (``tilestack.sums.PLANES``).
    """
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings = {**run.config["tile_reconstruction"], **(options or {})}
    layers, layer_records, sums, sum_records = [], [], {}, []
    for session in run.sessions:
        paths = _prewarped(run, session, out, added, moved)
        if halves is not None:
            paths["records"] = [_halved(path, out / session, halves) for path in paths["records"]]
        layer, layer_record = (out / f"template_{session}{end}" for end in (".fits", ".json"))
        templates.template(
            {
                "normalization": run.folder / f"work/normalization/{session}.json",
                "reference": run.folder / "work/reference.json",
                **paths,
                "layers": layer_records,
            },
            layer,
            layer_record,
            template_frames=run.config["normalization"]["template_frames"],
        )
        layers.append(layer)
        layer_records.append(layer_record)
        fields = _fields(run, session, out, changed)
        sums[session] = []
        for batch, image, record in zip(run.batches(session), paths["images"], paths["records"], strict=True):
            made = out / f"sums_{session}_{batch}.fits"
            reconstruct.reconstruct_batch(
                {
                    "image": image,
                    "record": record,
                    "fields": fields,
                    "weights": run.folder / f"work/weights/{session}.json",
                    "normalization": run.folder / f"work/normalization/{session}.json",
                    "grid": run.folder / "artifacts/tile_grid.json",
                    "channels": run.folder / "artifacts/channel_split.json",
                    "layers": layers,
                    "layer_record": layer_record,
                },
                made,
                made.with_suffix(".json"),
                batch=batch,
                options={key: item for key, item in settings.items() if key != "put_back_share"},
            )
            sums[session].append(made)
            sum_records.append(made.with_suffix(".json"))
    reconstruction.tile_reconstruction(
        {
            "sums": sums,
            "records": sum_records,
            "fields": [run.folder / f"work/weights/{session}.fits" for session in run.sessions],
            "weights": [run.folder / f"work/weights/{session}.json" for session in run.sessions],
            "overlap": run.folder / "artifacts/common_overlap.json",
            "grid": run.folder / "artifacts/tile_grid.json",
        },
        out / "reconstruction.fits",
        out / "reconstruction.json",
        put_back_share=settings["put_back_share"],
    )
    return planes(out / "reconstruction.fits")


def _prewarped(run, session, out, added, moved):
    """Prewarped batches of a session: the run's own where nothing is added or moved."""
    ends = {"images": ".fits", "records": ".json"}
    own = {
        key: [run.folder / f"work/prewarp/{session}/{batch}{end}" for batch in run.batches(session)]
        for key, end in ends.items()
    }
    if added is None and moved is None:
        return own
    (out / session).mkdir(parents=True)
    made = {key: [out / session / path.name for path in paths] for key, paths in own.items()}
    registered = run.record(f"work/registration/{session}.json")
    folder = Path(run.sessions[session]["folder"])
    for batch, image, record, old in zip(
        run.batches(session), made["images"], made["records"], own["records"], strict=True
    ):
        frames = [f for f in run.frames(session) if f["batch"] == batch]
        if moved is not None:
            frames = [{**f, "transform": moved(session, f)} for f in frames]
        by_name = {f["file"]: f for f in frames}

        def read(path, by_name=by_name):
            pixels, header = lights.read(path)
            if added is not None:
                pixels = pixels + added(session, by_name[path.relative_to(folder).as_posix()], pixels)
            return pixels, header

        entries = prewarp.write_batch(
            folder,
            frames,
            registered,
            run.lattice,
            image,
            cfa=run.config["prewarp"]["cfa"],
            cosmetic=run.config["prewarp"]["cosmetic"],
            read=read,
        )
        records.write(record, {**records.read(old), "frames": entries})
    return made


def _halved(path, out, halves):
    """A prewarp record whose frames belong to other halves."""
    out.mkdir(exist_ok=True)
    record = records.read(path)
    records.write(out / path.name, {**record, "frames": [{**f, "index": halves(f["index"])} for f in record["frames"]]})
    return out / path.name


def _fields(run, session, out, changed):
    path = run.folder / f"work/weights/{session}.fits"
    if changed is None:
        return path
    with files.opened(path) as hdus:
        header = {key: hdus[0].header[key] for key in ("TILEPX", "STRIDEPX", "TILEY0", "TILEX0", "NFRAMES")}
        fields = {hdu.name: np.array(files.native(files.pixels(hdu))) for hdu in hdus[1:]}
    changed(session, fields)
    made = out / f"fields_{session}.fits"
    made.parent.mkdir(parents=True, exist_ok=True)
    with files.Writer(made, header) as writer:
        for name, values in fields.items():
            writer.append(name, values)
    return made
