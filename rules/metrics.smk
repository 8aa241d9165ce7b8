# Phases 3-8. What a session adds is made from that session and the ones before it, never from later ones.


rule channel_split:
    """Settle the channel model."""
    input:
        reference="<run>/work/reference.json",
    output:
        "<run>/artifacts/channel_split.json",
    log:
        text="<run>/logs/channel_split.log",
        reason="<run>/logs/channel_split.reason.json",
    benchmark:
        "<run>/benchmarks/channel_split.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        profile=config["assumptions"]["pipeline_profile"],
        cfa=config["prewarp"]["cfa"],
        code=code("channel_split.py"),
    script:
        "../scripts/channel_split.py"


rule normalization:
    """Fit the photometric scale and the sky of a session's frames."""
    input:
        registration="<run>/work/registration/{session}.json",
        reference="<run>/work/reference.json",
        stars=of_session("<run>/work/stars/{session}/{batch}.json"),
        records=of_session("<run>/work/prewarp/{session}/{batch}.json"),
        images=of_session("<run>/work/prewarp/{session}/{batch}.fits"),
        first=of_first("<run>/work/normalization/{session}.json"),
        layers=before("<run>/work/template/{session}.json"),
        layer_images=before("<run>/work/template/{session}.fits"),
    output:
        "<run>/work/normalization/{session}.json",
    log:
        text="<run>/logs/normalization/{session}.log",
        reason="<run>/logs/normalization/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/normalization/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(1000),
    params:
        sky_model=config["normalization"]["sky_model"],
        sky_mesh_px=config["normalization"]["sky_mesh_px"],
        code=code("normalization.py"),
    script:
        "../scripts/normalization.py"


rule template:
    """Add the session's layer to the sky template."""
    input:
        reference="<run>/work/reference.json",
        normalization="<run>/work/normalization/{session}.json",
        images=of_session("<run>/work/prewarp/{session}/{batch}.fits"),
        records=of_session("<run>/work/prewarp/{session}/{batch}.json"),
        layers=before("<run>/work/template/{session}.json"),
    output:
        image="<run>/work/template/{session}.fits",
        record="<run>/work/template/{session}.json",
    log:
        text="<run>/logs/template/{session}.log",
        reason="<run>/logs/template/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/template/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: session_threads
    resources:
        mem_mb=memory(2000),
    params:
        template_frames=config["normalization"]["template_frames"],
        code=code("template.py"),
    script:
        "../scripts/template.py"


rule normalization_summary:
    """Gather the normalisation of the sessions."""
    input:
        sessions=of_sessions("<run>/work/normalization/{session}.json"),
    output:
        "<run>/artifacts/normalization.json",
    log:
        text="<run>/logs/normalization_summary.log",
        reason="<run>/logs/normalization_summary.reason.json",
    benchmark:
        "<run>/benchmarks/normalization_summary.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("normalization_summary.py"),
    script:
        "../scripts/normalization_summary.py"


rule global_metrics:
    """Weigh the frames of a session as wholes."""
    input:
        normalization="<run>/work/normalization/{session}.json",
        registration="<run>/work/registration/{session}.json",
        records=of_session("<run>/work/prewarp/{session}/{batch}.json"),
    output:
        "<run>/work/global/{session}.json",
    log:
        text="<run>/logs/global_metrics/{session}.log",
        reason="<run>/logs/global_metrics/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/global_metrics/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        objective=config["weights"]["objective"],
        quality_model=config["quality_model"],
        code=code("global_metrics.py"),
    script:
        "../scripts/global_metrics.py"


rule global_metrics_summary:
    """Gather the global metrics of the sessions."""
    input:
        sessions=of_sessions("<run>/work/global/{session}.json"),
    output:
        "<run>/artifacts/global_metrics.json",
    log:
        text="<run>/logs/global_metrics_summary.log",
        reason="<run>/logs/global_metrics_summary.reason.json",
    benchmark:
        "<run>/benchmarks/global_metrics_summary.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("global_metrics_summary.py"),
    script:
        "../scripts/global_metrics_summary.py"


rule tile_grid:
    """Lay the tiles on the lattice."""
    input:
        reference="<run>/work/reference.json",
    output:
        "<run>/artifacts/tile_grid.json",
    log:
        text="<run>/logs/tile_grid.log",
        reason="<run>/logs/tile_grid.reason.json",
    benchmark:
        "<run>/benchmarks/tile_grid.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        tile=lambda wildcards: config["tile"],
        code=code("tile_grid.py"),
    script:
        "../scripts/tile_grid.py"


rule common_overlap:
    """Map the coverage of the run."""
    input:
        records=of_run("<run>/work/prewarp/{session}/{batch}.json"),
        registrations=of_sessions("<run>/work/registration/{session}.json"),
        grid="<run>/artifacts/tile_grid.json",
    output:
        "<run>/artifacts/common_overlap.json",
    log:
        text="<run>/logs/common_overlap.log",
        reason="<run>/logs/common_overlap.reason.json",
    benchmark:
        "<run>/benchmarks/common_overlap.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("common_overlap.py"),
    script:
        "../scripts/common_overlap.py"


rule local_metrics:
    """Measure the tiles of a batch."""
    input:
        image="<run>/work/prewarp/{session}/{batch}.fits",
        record="<run>/work/prewarp/{session}/{batch}.json",
        stars="<run>/work/stars/{session}/{batch}.json",
        registration="<run>/work/registration/{session}.json",
        normalization="<run>/work/normalization/{session}.json",
        grid="<run>/artifacts/tile_grid.json",
        channels="<run>/artifacts/channel_split.json",
        layers=so_far("<run>/work/template/{session}.fits"),
        layer_records=so_far("<run>/work/template/{session}.json"),
    output:
        "<run>/work/local/{session}/{batch}.fits",
    log:
        text="<run>/logs/local_metrics/{session}_{batch}.log",
        reason="<run>/logs/local_metrics/{session}_{batch}.reason.json",
    benchmark:
        "<run>/benchmarks/local_metrics/{session}_{batch}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: batch_threads
    resources:
        mem_mb=memory(1500),
    params:
        code=code("local_metrics.py"),
    script:
        "../scripts/local_metrics.py"


rule local_weights:
    """Turn the local metrics of a session into weight fields."""
    input:
        local=of_session("<run>/work/local/{session}/{batch}.fits"),
        records=of_session("<run>/work/prewarp/{session}/{batch}.json"),
        normalization="<run>/work/normalization/{session}.json",
        global_metrics="<run>/work/global/{session}.json",
    output:
        fields="<run>/work/weights/{session}.fits",
        record="<run>/work/weights/{session}.json",
    log:
        text="<run>/logs/local_weights/{session}.log",
        reason="<run>/logs/local_weights/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/local_weights/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(1500),
    params:
        objective=config["weights"]["objective"],
        quality_model=config["quality_model"],
        profile=config["assumptions"]["pipeline_profile"],
        code=code("local_weights.py"),
    script:
        "../scripts/local_weights.py"


rule local_metrics_summary:
    """Gather what local weights found in the sessions."""
    input:
        sessions=of_sessions("<run>/work/weights/{session}.json"),
    output:
        "<run>/artifacts/local_metrics.json",
    log:
        text="<run>/logs/local_metrics_summary.log",
        reason="<run>/logs/local_metrics_summary.reason.json",
    benchmark:
        "<run>/benchmarks/local_metrics_summary.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("local_metrics_summary.py"),
    script:
        "../scripts/local_metrics_summary.py"


rule registered_frames:
    """Write the aligned frames of a batch on the canvas of the run, where output.write_registered_frames asks for them."""
    input:
        image="<run>/work/prewarp/{session}/{batch}.fits",
        record="<run>/work/prewarp/{session}/{batch}.json",
        registration="<run>/work/registration/{session}.json",
        overlap="<run>/artifacts/common_overlap.json",
        channels="<run>/artifacts/channel_split.json",
    output:
        directory("<run>/outputs/registered/{session}/{batch}"),
    log:
        text="<run>/logs/registered_frames/{session}_{batch}.log",
        reason="<run>/logs/registered_frames/{session}_{batch}.reason.json",
    benchmark:
        "<run>/benchmarks/registered_frames/{session}_{batch}.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(1000),
    params:
        code=code("registered_frames.py"),
    script:
        "../scripts/registered_frames.py"
