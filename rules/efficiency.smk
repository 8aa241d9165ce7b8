# Not a phase: a measurement that a user asks for by its name.


rule efficiency:
    """Measure what the stack makes of known light, against the best that its frames allow."""
    input:
        sums=of_run("<run>/work/sums/{session}/{batch}.fits"),
        drizzled=of_run("<run>/work/drizzled/{session}/{batch}.fits"),
        synthetic_record="<run>/work/synthetic_stack.json",
        debayer="<run>/artifacts/debayer.json",
        overlap="<run>/artifacts/common_overlap.json",
        grid="<run>/artifacts/tile_grid.json",
        channels="<run>/artifacts/channel_split.json",
        stacking="<run>/artifacts/stacking.json",
        reference="<run>/work/reference.json",
        registration=of_sessions("<run>/work/registration/{session}.json"),
        normalization=of_sessions("<run>/work/normalization/{session}.json"),
        weights=of_sessions("<run>/work/weights/{session}.json"),
        fields=of_sessions("<run>/work/weights/{session}.fits"),
        records=of_run("<run>/work/prewarp/{session}/{batch}.json"),
    output:
        "<run>/artifacts/efficiency.json",
    log:
        text="<run>/logs/efficiency.log",
        reason="<run>/logs/efficiency.reason.json",
    benchmark:
        "<run>/benchmarks/efficiency.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: 4
    resources:
        mem_mb=memory(4000),
    params:
        run_folder=lambda wildcards: RUN,
        code=code("measure_efficiency.py"),
    script:
        "../scripts/measure_efficiency.py"
