"""The stack of a finished run once more: from other lights, or with something changed, in a folder of its own."""

import json
import shutil
from pathlib import Path

import colour_template as colour_templates
import numba
import numpy as np
import reconstruct_batch as reconstruct
import synthetic_stack as combination
import template as templates
import tile_reconstruction as reconstruction
import yaml
from astropy.io import fits

from tilestack import files, lights, prewarp, records, stackfiles

# Sums of a batch, by the keys that RECONSTRUCT_BATCH has for them: where a run has them below work/.
SUMS = {
    "sums": "sums/{}.fits",
    "drizzled": "drizzled/{}.fits",
    "flat": "flat/{}.fits",
    "flat_drizzled": "flat_drizzled/{}.fits",
    "record": "sums/{}.json",
}


class Run:
    """Records of a finished run.

    Parameters
    ----------
    folder : path
        ``runs/<run_id>``; with its prewarped frames where the stack is made again with nothing added.
    n_threads : int
        Of what is made again.
    """

    def __init__(self, folder, n_threads=1):
        self.folder, self.n_threads = Path(folder), n_threads
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))  # those that known light is added by
        self.config = yaml.safe_load((self.folder / "config.yaml").read_text())
        plan = json.loads((self.folder / "plan.json").read_text())
        self.sessions = {s["id"]: s for s in plan["sessions"] if s["listed"]}
        self.reference = self.record("work/reference.json")
        self.lattice = self.reference["lattice"]
        self.combined = self.record("work/synthetic_stack.json")["combined"]
        # Where its stack lies: of the mosaic, and with _rgb behind it of the drizzled colours.
        self.stack = "synthetic_stack" if self.combined else "reconstruction"

    def record(self, path):
        return records.read(self.folder / path)

    def batches(self, session):
        return [f"{k + 1:04d}" for k in range(len(self.sessions[session]["batches"]))]

    def frames(self, session):
        """Entries of the registration record with a place on the lattice."""
        return [f for f in self.record(f"work/registration/{session}.json")["frames"] if f["transform"] is not None]


def planes(folder, channel=0):
    """Planes of a stack by its folder, or of a colour of drizzled ones: name -> (h, w) array."""
    paths = {name: Path(folder, f"{name}.fits") for name in stackfiles.OF_FILE}
    return stackfiles.channel({name: path for name, path in paths.items() if path.exists()}, channel)


def _stack_files(folder):
    """Files of a stack that is to be written, and of its colours: what a rule has as output."""
    made = {}
    for end in ("", "_rgb"):
        own = Path(f"{folder}{end}")
        own.mkdir()
        made |= {f"{name}{end}": own / f"{name}.fits" for name in stackfiles.OF_FILE}
    return made


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
        Planes of what the stack is made of (``tilestack.stackfiles``), which is at `out` / ``run.stack``.
    """
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings = {**run.config["tile_reconstruction"], **(options or {})}
    cosmetic = run.config["prewarp"]["cosmetic"]
    layers, layer_records, colour_layers, made = [], [], [], {}
    for session in run.sessions:
        folder = _lights(run, session, out, added)
        paths = _prewarped(run, session, out, folder, added, moved)
        if halves is not None:
            paths["records"] = [_halved(path, out / session, halves) for path in paths["records"]]
        own = {
            "normalization": run.folder / f"work/normalization/{session}.json",
            "registration": _registration(run, session, out, moved),
            "weights": run.folder / f"work/weights/{session}.json",
            "reference": run.folder / "work/reference.json",
            "grid": run.folder / "artifacts/tile_grid.json",
            "channels": run.folder / "artifacts/channel_split.json",
            "clusters": run.folder / f"work/state_clustering/{session}.json",
        }
        ends = (".fits", ".json", "_rgb.fits")
        layer, layer_record, colour_layer = (out / f"template_{session}{end}" for end in ends)
        templates.template(
            {**own, **paths, "layers": layer_records},
            layer,
            layer_record,
            template_frames=run.config["normalization"]["template_frames"],
            n_threads=run.n_threads,
        )
        colour_templates.colour_template(
            {**own, "layer": layer, "layer_record": layer_record, "records": paths["records"]},
            colour_layer,
            folder=folder,
            cosmetic=cosmetic,
            n_threads=run.n_threads,
        )
        layers.append(layer)
        layer_records.append(layer_record)
        colour_layers.append(colour_layer)
        own |= {"layers": layers, "layer_record": layer_record, "colour_layers": colour_layers}
        own["fields"] = _fields(run, session, out, changed)
        made[session] = {key: [] for key in SUMS}
        for batch, image, record in zip(run.batches(session), paths["images"], paths["records"], strict=True):
            end = f"_{session}_{batch}.fits"
            sums = {key: out / f"{key}{end}" for key in SUMS if key != "record"} | {"record": out / f"sums{end}.json"}
            reconstruct.reconstruct_batch(
                {**own, "image": image, "record": record},
                sums,
                folder=folder,
                batch=batch,
                options={key: item for key, item in settings.items() if key != "put_back_share"},
                drizzle=run.config["drizzle"],
                cosmetic=cosmetic,
                by_cluster=run.combined,
                n_threads=run.n_threads,
            )
            for key, path in sums.items():
                made[session][key].append(path)
    return _added_up(run, out, made, settings)


def as_it_is(run, out):
    """The stack of a run from its own sums: all planes, those that it does not keep too.

    Parameters
    ----------
    run : Run
    out : path
        New folder for what is made; deleted first.

    Returns
    -------
    dict
        As of ``restack``.
    """
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    made = {
        session: {
            key: [run.folder / "work" / place.format(f"{session}/{batch}") for batch in run.batches(session)]
            for key, place in SUMS.items()
        }
        for session in run.sessions
    }
    return _added_up(run, out, made, run.config["tile_reconstruction"])


def _added_up(run, out, made, settings):
    """Planes of the stack that sums add up to: by session and key of SUMS, the paths of its batches."""
    reconstruction.tile_reconstruction(
        {
            "records": [path for sums in made.values() for path in sums["record"]],
            **{key: {session: sums[key] for session, sums in made.items()} for key in ("sums", "drizzled")},
            "fields": [run.folder / f"work/weights/{session}.fits" for session in run.sessions],
            "weights": [run.folder / f"work/weights/{session}.json" for session in run.sessions],
            "clusters": [run.folder / f"work/state_clustering/{session}.json" for session in run.sessions],
            "overlap": run.folder / "artifacts/common_overlap.json",
            "grid": run.folder / "artifacts/tile_grid.json",
            "channels": run.folder / "artifacts/channel_split.json",
        },
        {"record": out / "reconstruction.json", **_stack_files(out / "reconstruction")},
        put_back_share=settings["put_back_share"],
        source=run.config["stacking"]["source"],
        by_cluster=run.combined,
        n_threads=run.n_threads,
    )
    if run.combined:
        _combine(run, out, made.values(), settings)
    return planes(out / run.stack)


def _combine(run, out, sums, settings):
    """The stack that the synthetic frames of the sessions make."""
    combination.synthetic_stack(
        {
            "clusters": [run.folder / f"work/state_clustering/{session}.json" for session in run.sessions],
            "image": out / "reconstruction/image.fits",
            "record": out / "reconstruction.json",
            "frames": run.folder / "artifacts/synthetic_frames.json",
            "channels": run.folder / "artifacts/channel_split.json",
            **{key: [of_session[key] for of_session in sums] for key in ("sums", "flat", "flat_drizzled")},
            "drizzled_sums": [of_session["drizzled"] for of_session in sums],
        },
        {"record": out / "synthetic_stack.json", **_stack_files(out / run.stack)},
        stacking=run.config["stacking"],
        rejection={key: settings[key] for key in ("kappa", "range_tolerance", "put_back_share")},
        by_cluster=True,
        n_threads=run.n_threads,
    )


def _lights(run, session, out, added):
    """Folder of the lights of a session; where something is added, of what they are with it."""
    folder = Path(run.sessions[session]["folder"])
    if added is None:
        return folder
    changed = out / session / "lights"
    changed.mkdir(parents=True)
    for frame in run.frames(session):
        pixels, _ = lights.read(folder / frame["file"])
        fits.writeto(changed / frame["file"], pixels + added(session, frame, pixels))
    return changed


def _registration(run, session, out, moved):
    """Registration record of a session, with other transforms where frames are moved."""
    path = run.folder / f"work/registration/{session}.json"
    if moved is None:
        return path
    record = records.read(path)
    frames = [f if f["transform"] is None else {**f, "transform": moved(session, f)} for f in record["frames"]]
    made = out / f"registration_{session}.json"
    records.write(made, {**record, "frames": frames})
    return made


def _prewarped(run, session, out, folder, added, moved):
    """Prewarped batches of a session: the run's own where nothing is added or moved."""
    ends = {"images": ".fits", "records": ".json"}
    own = {
        key: [run.folder / f"work/prewarp/{session}/{batch}{end}" for batch in run.batches(session)]
        for key, end in ends.items()
    }
    if added is None and moved is None:
        return own
    (out / session).mkdir(parents=True, exist_ok=True)
    made = {key: [out / session / path.name for path in paths] for key, paths in own.items()}
    registered = run.record(f"work/registration/{session}.json")
    for batch, image, record, old in zip(
        run.batches(session), made["images"], made["records"], own["records"], strict=True
    ):
        frames = [f for f in run.frames(session) if f["batch"] == batch]
        if moved is not None:
            frames = [{**f, "transform": moved(session, f)} for f in frames]
        entries = prewarp.write_batch(
            folder,
            frames,
            registered,
            run.lattice,
            image,
            cfa=run.config["prewarp"]["cfa"],
            cosmetic=run.config["prewarp"]["cosmetic"],
            n_threads=run.n_threads,
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
