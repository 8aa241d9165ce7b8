# Phases 12-17. From 14 on they read outputs/ and artifacts/ only.
PRODUCTS = [
    "stacked.fits",
    "stacked_rgb.fits",
    *(f"planes/{name}{colour}.fits" for colour in ("", "_rgb") for name in ("even", "odd", "plain_mean")),
    "planes/inverse_variance.fits",
    *SKY_PRODUCTS,
]
RECORDS = [
    "scan_input",
    "registration",
    "channel_split",
    "normalization",
    "global_metrics",
    "tile_grid",
    "common_overlap",
    "local_metrics",
    "tile_reconstruction",
    "state_clustering",
    "synthetic_frames",
    "stacking",
    "debayer",
    "astrometry",
    "bge",
    "pcc",
]
ARTIFACTS = [*RECORDS, "validation", "run_status"]
# What makes the result what it is: not in which order folders are listed, nor how frames are dealt out.
RESULT_CONFIG = {key: item for key, item in config.items() if key not in ("input", "frames_per_batch")}
# What reaches the stack.
LATER = ("debayer", "astrometry", "catalogue", "bge", "pcc", "validation", "output")
MADE_BY = {key: item for key, item in RESULT_CONFIG.items() if key not in LATER}


rule stacking:
    """The final linear image."""
    input:
        **passed_on("<run>/work/reconstruction", [*HALVES, "plain_mean", "inverse_variance"], "direct_{}"),
        **passed_on("<run>/work/synthetic_stack", HALVES, "synthetic_{}"),
        synthetic_record="<run>/work/synthetic_stack.json",
        reconstruction="<run>/artifacts/tile_reconstruction.json",
        scan="<run>/artifacts/scan_input.json",
        registration="<run>/artifacts/registration.json",
        global_metrics="<run>/artifacts/global_metrics.json",
        channels="<run>/artifacts/channel_split.json",
        reference="<run>/work/reference.json",
        gain=f"<run>/work/normalization/{FIRST}.json",
    output:
        header="<run>/outputs/unsolved/stacked_header.fits",
        image="<run>/outputs/unsolved/stacked.fits",
        even="<run>/outputs/unsolved/planes/even.fits",
        odd="<run>/outputs/unsolved/planes/odd.fits",
        plain_mean="<run>/outputs/unsolved/planes/plain_mean.fits",
        inverse_variance="<run>/outputs/unsolved/planes/inverse_variance.fits",
        preview="<run>/outputs/previews/stacked.png",
        preview_full="<run>/outputs/previews/stacked_full.png",
        record="<run>/artifacts/stacking.json",
    log:
        text="<run>/logs/stacking.log",
        reason="<run>/logs/stacking.reason.json",
    benchmark:
        "<run>/benchmarks/stacking.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: run_threads
    resources:
        mem_mb=memory(1500),
    params:
        run_id=RUN_ID,
        config=lambda wildcards: MADE_BY,
        cosmetic=config["stacking"]["cosmetic"],
        crop_coverage=config["stacking"]["crop_coverage"],
        code=code("stacking.py"),
    script:
        "../scripts/stacking.py"


rule debayer:
    """Colour image from the drizzled planes or the stacked mosaic; a mono image passes through."""
    input:
        **passed_on("<run>/work/reconstruction_rgb", [*HALVES, "plain_mean"], "direct_{}"),
        **passed_on("<run>/work/synthetic_stack_rgb", HALVES, "synthetic_{}"),
        **passed_on("<run>/outputs/unsolved/planes", ["even", "odd", "plain_mean"], "{}"),
        synthetic_record="<run>/work/synthetic_stack.json",
        header=ancient("<run>/outputs/unsolved/stacked_header.fits"),
        image=ancient("<run>/outputs/unsolved/stacked.fits"),
        stacking="<run>/artifacts/stacking.json",
        reconstruction="<run>/artifacts/tile_reconstruction.json",
        preview=ancient("<run>/outputs/previews/stacked.png"),
        preview_full=ancient("<run>/outputs/previews/stacked_full.png"),
        channels="<run>/artifacts/channel_split.json",
    output:
        header="<run>/outputs/unsolved/stacked_rgb_header.fits",
        image="<run>/outputs/unsolved/stacked_rgb.fits",
        even="<run>/outputs/unsolved/planes/even_rgb.fits",
        odd="<run>/outputs/unsolved/planes/odd_rgb.fits",
        plain_mean="<run>/outputs/unsolved/planes/plain_mean_rgb.fits",
        preview="<run>/outputs/previews/stacked_rgb.png",
        preview_full="<run>/outputs/previews/stacked_rgb_full.png",
        record="<run>/artifacts/debayer.json",
    log:
        text="<run>/logs/debayer.log",
        reason="<run>/logs/debayer.reason.json",
    benchmark:
        "<run>/benchmarks/debayer.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: run_threads
    resources:
        mem_mb=memory(1500),
    params:
        method=config["debayer"]["method"],
        cosmetic=config["stacking"]["cosmetic"],
        code=code("debayer.py"),
    script:
        "../scripts/debayer.py"


rule done:
    """Final status of the run."""
    input:
        products=expand("<run>/outputs/{name}", name=PRODUCTS),
        records=expand("<run>/artifacts/{phase}.json", phase=RECORDS),
        validation="<run>/artifacts/validation.json",
    output:
        "<run>/artifacts/run_status.json",
    log:
        text="<run>/logs/done.log",
        reason="<run>/logs/done.reason.json",
    benchmark:
        "<run>/benchmarks/done.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        config=lambda wildcards: json.dumps(RESULT_CONFIG, sort_keys=True),
        run_folder=lambda wildcards: RUN,
        code=code("done.py"),
    script:
        "../scripts/done.py"
