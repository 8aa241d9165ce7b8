# The end of phase 17: what people read. It reads outputs/ and artifacts/, and of the run its timeline and benchmarks.
REPORT_FIGURES = {  # name: (category of Snakemake's report, label)
    "losses": ("Result", "Where the light goes"),
    "depth": ("Result", "Depth against time"),
    "coverage": ("Result", "Coverage and effective exposure"),
    "rejection": ("Result", "Rejected pixels"),
    "normalization": ("Frames", "Normalisation"),
    "global_metrics": ("Frames", "Global metrics"),
    "star_metrics": ("Frames", "Star metrics"),
    "correlations": ("Frames", "Correlations"),
    "registration": ("Frames", "Registration"),
    "tiles": ("Field", "Tile analysis"),
    "reconstruction": ("Field", "Reconstruction"),
    "timeline": ("Run", "Timeline"),
}
# Previews in small, for Snakemake's report: it embeds files as they are, and would be 17 MB with the previews themselves and
# the page, which lies beside the run anyway.
REPORT_PICTURES = {
    "stacked_rgb": "Stack",
    "stacked_rgb_pcc": "Final: background and colours",
    "annotated": "Annotated",
}
REPORT = [
    "<run>/artifacts/report.html",
    "<run>/artifacts/frames.csv",
    *expand("<run>/artifacts/figures/{name}.svg", name=REPORT_FIGURES),
    *expand("<run>/artifacts/figures/{name}.jpg", name=REPORT_PICTURES),
]


rule report:
    """The report of the run, and the figures of Snakemake's own."""
    input:
        products=[
            "<run>/outputs/stacked.fits",
            "<run>/outputs/stacked_rgb.fits",
            "<run>/outputs/planes/plain_mean_rgb.fits",
        ],
        previews=expand("<run>/outputs/previews/{name}", name=PREVIEWS),
        figures=expand("<run>/artifacts/figures/{name}", name=FIGURES),
        records=expand("<run>/artifacts/{phase}.json", phase=ARTIFACTS),
    output:
        page="<run>/artifacts/report.html",
        table=report(
            "<run>/artifacts/frames.csv",
            caption="captions/frames.rst",
            category="Frames",
            labels={"figure": "Table of all frames"},
        ),
        figures=[
            report(
                f"<run>/artifacts/figures/{name}.svg",
                caption=f"captions/{name}.rst",
                category=category,
                labels={"figure": label},
            )
            for name, (category, label) in REPORT_FIGURES.items()
        ],
        pictures=[
            report(
                f"<run>/artifacts/figures/{name}.jpg",
                caption="captions/preview.rst",
                category="Pictures",
                labels={"figure": label},
            )
            for name, label in REPORT_PICTURES.items()
        ],
    log:
        text="<run>/logs/report.log",
        reason="<run>/logs/report.reason.json",
    benchmark:
        "<run>/benchmarks/report.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(2500),
    params:
        run_folder=lambda wildcards: RUN,
        # Made at the user's wish by the target efficiency, so it is no input; the report takes it where it is there.
        measured=lambda wildcards: contents_of(Path(RUN, "artifacts/efficiency.json")),
        templates=contents_of(*sorted((SCRIPTS / "tilestack/report/templates").iterdir())),
        code=code("report.py"),
    script:
        "../scripts/report.py"
