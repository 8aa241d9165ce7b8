# Phases 10 and 11, and the combination of synthetic frames. By session: what a session has is never changed by a later
# one. So whether it has clusters goes by the frames up to it; a session from before the threshold stays one frame.


rule session_clusters:
    """Group the frames of a session by state."""
    input:
        global_metrics="<run>/work/global/{session}.json",
        weights="<run>/work/weights/{session}.json",
        registrations=so_far("<run>/work/registration/{session}.json"),
    output:
        "<run>/work/state_clustering/{session}.json",
    log:
        text="<run>/logs/session_clusters/{session}.log",
        reason="<run>/logs/session_clusters/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/session_clusters/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(1000),
    params:
        clustering=clustering,
        code=code("session_clusters.py"),
    script:
        "../scripts/session_clusters.py"


rule state_clustering:
    """Gather the clusters of the sessions."""
    input:
        of_sessions("<run>/work/state_clustering/{session}.json"),
    output:
        "<run>/artifacts/state_clustering.json",
    log:
        text="<run>/logs/state_clustering.log",
        reason="<run>/logs/state_clustering.reason.json",
    benchmark:
        "<run>/benchmarks/state_clustering.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("state_clustering.py"),
    script:
        "../scripts/state_clustering.py"


rule session_synthetic:
    """Add up one frame a cluster of a session."""
    input:
        record="<run>/work/state_clustering/{session}.json",
        flat=of_session("<run>/work/flat/{session}/{batch}.fits"),
        sums=of_session("<run>/work/sums/{session}/{batch}.fits"),
    output:
        image="<run>/work/synthetic/{session}.fits",
        record="<run>/work/synthetic/{session}.json",
    log:
        text="<run>/logs/session_synthetic/{session}.log",
        reason="<run>/logs/session_synthetic/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/session_synthetic/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: session_threads
    resources:
        mem_mb=memory(1000),
    params:
        put_back_share=config["tile_reconstruction"]["put_back_share"],
        code=code("session_synthetic.py"),
    script:
        "../scripts/session_synthetic.py"


rule synthetic_frames:
    """Gather the synthetic frames of the sessions."""
    input:
        clusters=of_sessions("<run>/work/state_clustering/{session}.json"),
        synthetic=of_sessions("<run>/work/synthetic/{session}.json"),
        weights=of_sessions("<run>/work/weights/{session}.json"),
        global_metrics="<run>/artifacts/global_metrics.json",
    output:
        "<run>/artifacts/synthetic_frames.json",
    log:
        text="<run>/logs/synthetic_frames.log",
        reason="<run>/logs/synthetic_frames.reason.json",
    benchmark:
        "<run>/benchmarks/synthetic_frames.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("synthetic_frames.py"),
    script:
        "../scripts/synthetic_frames.py"


rule synthetic_stack:
    """Combine the synthetic frames, where the stack is made of them."""
    input:
        image=ancient("<run>/work/reconstruction/image.fits"),
        record="<run>/artifacts/tile_reconstruction.json",
        frames="<run>/artifacts/synthetic_frames.json",
        channels="<run>/artifacts/channel_split.json",
        clusters=of_sessions("<run>/work/state_clustering/{session}.json"),
        flat=of_run("<run>/work/flat/{session}/{batch}.fits"),
        sums=of_run("<run>/work/sums/{session}/{batch}.fits"),
        flat_drizzled=of_run("<run>/work/flat_drizzled/{session}/{batch}.fits"),
        drizzled_sums=of_run("<run>/work/drizzled/{session}/{batch}.fits"),
    output:
        **stack_files("<run>/work/synthetic_stack", HALVES),
        **stack_files("<run>/work/synthetic_stack_rgb", HALVES, "{}_rgb"),
        record="<run>/work/synthetic_stack.json",
    log:
        text="<run>/logs/synthetic_stack.log",
        reason="<run>/logs/synthetic_stack.reason.json",
    benchmark:
        "<run>/benchmarks/synthetic_stack.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: run_threads
    resources:
        mem_mb=memory(1500),
    params:
        n_batches=N_BATCHES,
        by_cluster=lambda wildcards: by_cluster(SESSIONS),
        stacking={
            key: config["stacking"][key]
            for key in ("source", "method", "cluster_quality_kappa", "cluster_quality_cap")
        },
        rejection={key: config["tile_reconstruction"][key] for key in ("kappa", "range_tolerance", "put_back_share")},
        code=code("synthetic_stack.py"),
    script:
        "../scripts/synthetic_stack.py"
