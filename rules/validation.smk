# The end of phase 12, and what makes of it the end of the run. Reads outputs/ and artifacts/ only.
VERDICT = ["<run>/work/verdict"] if config["validation"]["strict"] else []


rule validation:
    """Check the stack against what its frames allow."""
    input:
        header="<run>/outputs/unsolved/stacked_header.fits",
        stacked="<run>/outputs/unsolved/stacked.fits",
        rgb="<run>/outputs/unsolved/stacked_rgb.fits",
        even="<run>/outputs/unsolved/planes/even.fits",
        odd="<run>/outputs/unsolved/planes/odd.fits",
        plain_mean="<run>/outputs/unsolved/planes/plain_mean.fits",
        even_rgb="<run>/outputs/unsolved/planes/even_rgb.fits",
        odd_rgb="<run>/outputs/unsolved/planes/odd_rgb.fits",
        plain_mean_rgb="<run>/outputs/unsolved/planes/plain_mean_rgb.fits",
        global_metrics="<run>/artifacts/global_metrics.json",
        registration="<run>/artifacts/registration.json",
        reconstruction="<run>/artifacts/tile_reconstruction.json",
        grid="<run>/artifacts/tile_grid.json",
        debayer="<run>/artifacts/debayer.json",
    output:
        "<run>/artifacts/validation.json",
    log:
        text="<run>/logs/validation.log",
        reason="<run>/logs/validation.reason.json",
    benchmark:
        "<run>/benchmarks/validation.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(2000),
    params:
        code=code("validation.py"),
    script:
        "../scripts/validation.py"


rule verdict:
    """End with an error where a check failed and validation.strict is set; all else of the run is done by then."""
    input:
        validation="<run>/artifacts/validation.json",
        rest=["<run>/artifacts/run_status.json", "<run>/artifacts/report.html", *REGISTERED],
    output:
        touch("<run>/work/verdict"),
    log:
        text="<run>/logs/verdict.log",
        reason="<run>/logs/verdict.reason.json",
    benchmark:
        "<run>/benchmarks/verdict.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("verdict.py"),
    script:
        "../scripts/verdict.py"
