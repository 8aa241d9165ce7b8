# Phases 14-16. They read outputs/ and artifacts/ only.
#
# A rule never changes the file of another one, and nobody knows the sky coordinates before the stack is there. So STACKING
# and DEBAYER write to outputs/unsolved, pixels and what is known of them apart, and sky_headers writes the products of
# outputs from them, headers complete. Apart from astrometry, so that one that fails leaves the products of the start
# before.
UNSOLVED = {
    "image": "stacked_rgb.fits",
    "mosaic": "stacked.fits",
    "even": "planes/even.fits",
    "odd": "planes/odd.fits",
    "plain_mean": "planes/plain_mean.fits",
    "inverse_variance": "planes/inverse_variance.fits",
    "even_rgb": "planes/even_rgb.fits",
    "odd_rgb": "planes/odd_rgb.fits",
    "plain_mean_rgb": "planes/plain_mean_rgb.fits",
}
SKY_PRODUCTS = [
    "stacked_rgb_bge.fits",
    "stacked_bge.fits",
    "stacked_rgb_pcc.fits",
    "planes/bge_model.fits",
    "stacked.wcs",
    "stacked_rgb.wcs",
    "field_stars.fits",
    "pcc_stars.fits",
]
STAGES = ["stacked", "stacked_rgb", "stacked_rgb_bge", "stacked_rgb_pcc"]
PREVIEWS = [*(f"{stage}{size}.png" for stage in STAGES for size in ("", "_full")), "annotated.png"]
FIGURES = ["bge.png", "pcc.png"]


rule astrometry:
    """Sky coordinates."""
    input:
        header="<run>/outputs/unsolved/stacked_rgb_header.fits",
        image="<run>/outputs/unsolved/stacked_rgb.fits",
        mosaic="<run>/outputs/unsolved/stacked.fits",
    output:
        wcs="<run>/outputs/stacked_rgb.wcs",
        mosaic_wcs="<run>/outputs/stacked.wcs",
        stars="<run>/outputs/field_stars.fits",
        annotated="<run>/outputs/previews/annotated.png",
        record="<run>/artifacts/astrometry.json",
    log:
        text="<run>/logs/astrometry.log",
        reason="<run>/logs/astrometry.reason.json",
    benchmark:
        "<run>/benchmarks/astrometry.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(2000),
    params:
        options=lambda wildcards: config["astrometry"],
        source=config["catalogue"]["source"],
        cache=f"{RUN}/outputs/catalogue",
        code=code("astrometry.py"),
    script:
        "../scripts/astrometry.py"


rule sky_headers:
    """The products, with sky coordinates in their headers."""
    input:
        **{key: f"<run>/outputs/unsolved/{name}" for key, name in UNSOLVED.items()},
        header="<run>/outputs/unsolved/stacked_rgb_header.fits",
        mosaic_header="<run>/outputs/unsolved/stacked_header.fits",
        wcs="<run>/outputs/stacked_rgb.wcs",
        mosaic_wcs="<run>/outputs/stacked.wcs",
    output:
        **{key: f"<run>/outputs/{name}" for key, name in UNSOLVED.items()},
    log:
        text="<run>/logs/sky_headers.log",
        reason="<run>/logs/sky_headers.reason.json",
    benchmark:
        "<run>/benchmarks/sky_headers.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(1500),
    params:
        code=code("sky_headers.py"),
    script:
        "../scripts/sky_headers.py"


rule bge:
    """Background gradient; where it is switched off or refused the image passes through."""
    input:
        image="<run>/outputs/stacked_rgb.fits",
        mosaic="<run>/outputs/stacked.fits",
        channels="<run>/artifacts/channel_split.json",
    output:
        image="<run>/outputs/stacked_rgb_bge.fits",
        mosaic="<run>/outputs/stacked_bge.fits",
        model="<run>/outputs/planes/bge_model.fits",
        preview="<run>/outputs/previews/stacked_rgb_bge.png",
        preview_full="<run>/outputs/previews/stacked_rgb_bge_full.png",
        figure=report(
            "<run>/artifacts/figures/bge.png",
            caption="captions/bge.rst",
            category="Field",
            labels={"figure": "Background gradient"},
        ),
        record="<run>/artifacts/bge.json",
    log:
        text="<run>/logs/bge.log",
        reason="<run>/logs/bge.reason.json",
    benchmark:
        "<run>/benchmarks/bge.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(2000),
    params:
        options=lambda wildcards: config["bge"],
        code=code("bge.py"),
    script:
        "../scripts/bge.py"


rule pcc:
    """Colour calibration; where there are no colours or too few stars the image passes through."""
    input:
        image="<run>/outputs/stacked_rgb_bge.fits",
        before="<run>/outputs/stacked_rgb.fits",
        mosaic="<run>/outputs/stacked_bge.fits",
        stars="<run>/outputs/field_stars.fits",
        astrometry="<run>/artifacts/astrometry.json",
        debayer="<run>/artifacts/debayer.json",
        channels="<run>/artifacts/channel_split.json",
    output:
        image="<run>/outputs/stacked_rgb_pcc.fits",
        stars="<run>/outputs/pcc_stars.fits",
        preview="<run>/outputs/previews/stacked_rgb_pcc.png",
        preview_full="<run>/outputs/previews/stacked_rgb_pcc_full.png",
        figure=report(
            "<run>/artifacts/figures/pcc.png",
            caption="captions/pcc.rst",
            category="Field",
            labels={"figure": "Colour calibration"},
        ),
        record="<run>/artifacts/pcc.json",
    log:
        text="<run>/logs/pcc.log",
        reason="<run>/logs/pcc.reason.json",
    benchmark:
        "<run>/benchmarks/pcc.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(2000),
    params:
        options=lambda wildcards: config["pcc"],
        code=code("pcc.py"),
    script:
        "../scripts/pcc.py"
