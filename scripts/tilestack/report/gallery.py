"""All figures of a run, each with its caption."""

import matplotlib

from tilestack.report import drawing, figures

# name: what the figure shows; read aloud by screen readers, printed below the figure.
CAPTIONS = {
    "losses": "Where the light goes: each step takes its share of the squared S/N that all lights found could give.",
    "depth": "S/N against open time. The wide grey line is the most that any weighted mean of these frames can reach; "
    "the distance to it is the loss.",
    "coverage": "Frames, open time and effective exposure (open time times efficiency) over the field.",
    "rejection": "Where pixels were rejected, and the frames that caused most of it. A satellite shows as a line.",
    "normalization": "Sky and scale of each frame against the reference. Under clouds the scale falls; the sky "
    "often rises.",
    "global_metrics": "Noise, detail and weight of whole frames.",
    "star_metrics": "Width, shape and number of stars. wFWHM is FWHM times most stars over stars: it shows clouds.",
    "correlations": "What goes with what. A rank correlation near +1: both rise together; near \N{MINUS SIGN}1: one "
    "rises as the other falls.",
    "registration": "Where each frame lies against the reference: drift of the mount, dither, rotation of the field, "
    "and how well stars meet.",
    "tiles": "Quality over the field, by tile. Each square is the middle of a tile.",
    "reconstruction": "What the tiles got: frames by weight, rejected pixels, and what local weights gain over one "
    "weight a frame.",
    "clusters": "Frames grouped by the state of the sky, and when each state was.",
    "timeline": "Phases of the start that did most of the work; they overlap where they do not need each other.",
}
# Figures that every run has: files for Snakemake's report.
ALWAYS = [name for name in CAPTIONS if name != "clusters"]


def draw(run, rows, pictures):
    """SVG text in marker colours by name; figures without data are missing."""
    read = run["records"]
    frames = figures.Frames(read, rows)
    makers = {name: getattr(figures, name, None) for name in CAPTIONS} | {
        "depth": figures.depth_curve,
        "losses": lambda *args: figures.losses(*args, rows),
        "timeline": lambda *args: figures.timeline(run["events"]),
    }
    found = {}
    with matplotlib.rc_context(drawing.STYLE):
        for name, make in makers.items():
            figure = make(read, frames, pictures)
            if figure is not None:
                found[name] = drawing.svg(figure, name)
    return found
