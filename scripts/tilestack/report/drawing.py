"""How figures look: one style, colours that readers with any colour vision tell apart, light and dark.

Figures are drawn in marker colours, which become CSS variables in the page, and fixed colours in the files for
Snakemake's report.
"""

import io
import re

import matplotlib
from matplotlib.figure import Figure

# name: (marker, light, dark). Series colours after Okabe and Ito, lighter on dark ground.
COLOURS = {
    "ink": ("#010101", "#1f2933", "#e4e7eb"),
    "muted": ("#020202", "#616e7c", "#9aa5b1"),
    "grid": ("#030303", "#dde3ea", "#36404c"),
    "blue": ("#0471b1", "#0072b2", "#56b4e9"),
    "vermilion": ("#d45e01", "#d55e00", "#f08a4b"),
    "green": ("#019d72", "#009e73", "#2cc99b"),
    "purple": ("#cb78a6", "#b0568a", "#dd95bd"),
    "orange": ("#e59e01", "#c98500", "#f0b429"),
}
INK, MUTED, GRID = (COLOURS[name][0] for name in ("ink", "muted", "grid"))
BLUE, VERMILION, GREEN, PURPLE, ORANGE = (
    COLOURS[name][0] for name in ("blue", "vermilion", "green", "purple", "orange")
)
CHANNELS = {"R": (VERMILION, "^"), "G": (GREEN, "o"), "B": (BLUE, "s"), "L": (MUTED, "o"), "MONO": (BLUE, "o")}
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
# Above so many points a series becomes a picture within the figure: its size no longer grows.
VECTOR_POINTS = 250
SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.markersize": 3.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "image.interpolation": "none",
}


def canvas(rows, columns, width=7.6, height=None):
    """A figure and its axes, flat."""
    figure = Figure(figsize=(width, height or 2.3 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def svg(figure, name):
    """A figure as SVG text with marker colours; the same bits for the same figure."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", dpi=110, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-zA-Z.]+_\d+"', "", text)  # not unique in a page, and nothing refers to them
    text = re.sub(
        r"font: (\w+ )?([\d.]+)px [^;\"]*", lambda m: f"font-weight: {m[1] or 'normal'}; font-size: {m[2]}px", text
    )
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return re.sub(r"(\d\.\d\d\d)\d+", r"\1", text)


def inline(text, description):
    """For the page: colours as CSS variables, size by the page."""
    for name, (marker, _, _) in COLOURS.items():
        text = text.replace(marker, f"var(--{name})")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)


def standalone(text):
    """For a file of its own: fixed colours on white."""
    for marker, light, _ in COLOURS.values():
        text = text.replace(marker, light)
    text = re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', text, count=1)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + text.replace("<svg", '<svg font-family="sans-serif"', 1)


def points(ax, x, y, colour=BLUE, marker="o", label=None, alpha=0.85):
    """Points; many of them as a picture."""
    many = len(x) > VECTOR_POINTS
    ax.plot(
        x,
        y,
        marker,
        color=colour,
        markersize=2.2 if many else 3.5,
        markeredgewidth=0,
        alpha=alpha,
        label=label,
        rasterized=many,
    )


def heat(figure, ax, values, title, unit, *, extent=None, bottom_up=False, limits=None, diverging=False):
    """A map with its colour bar; cells without data stay empty."""
    low, high = limits or (None, None)
    shown = ax.imshow(
        values,
        extent=extent,
        origin="upper",
        cmap=DIVERGING if diverging else SEQUENTIAL,
        vmin=low,
        vmax=high,
        interpolation="none",
    )
    if bottom_up:
        ax.invert_yaxis()
    ax.grid(False)
    ax.set_title(title)
    ax.set_xlabel("x (px)")
    ax.set_ylabel("y (px)")
    ax.locator_params(nbins=4)
    # Within the axes' own frame, so that it is as high as the map.
    bar = figure.colorbar(shown, cax=ax.inset_axes([1.04, 0, 0.05, 1]))
    bar.set_label(unit)
    bar.outline.set_visible(False)
    bar.locator = matplotlib.ticker.MaxNLocator(5)
    bar.update_ticks()
