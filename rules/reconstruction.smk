# Phase 9. Partial sums of a batch never change; a new night adds its own and one addition.
REJECTION = {key: item for key, item in config["tile_reconstruction"].items() if key != "put_back_share"}


rule colour_template:
    """Drizzle the sharpest frames of a session into the template that colours are measured against."""
    input:
        layer="<run>/work/template/{session}.fits",
        layer_record="<run>/work/template/{session}.json",
        records=of_session("<run>/work/prewarp/{session}/{batch}.json"),
        normalization="<run>/work/normalization/{session}.json",
        registration="<run>/work/registration/{session}.json",
        reference="<run>/work/reference.json",
        channels="<run>/artifacts/channel_split.json",
    output:
        "<run>/work/template_rgb/{session}.fits",
    log:
        text="<run>/logs/colour_template/{session}.log",
        reason="<run>/logs/colour_template/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/colour_template/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: template_threads
    resources:
        mem_mb=memory(2000),
    params:
        folder=lights_folder,
        cosmetic=config["prewarp"]["cosmetic"],
        code=code("colour_template.py"),
    script:
        "../scripts/colour_template.py"


rule reconstruct_batch:
    """Partial sums of a batch, weighted and without outliers."""
    input:
        image="<run>/work/prewarp/{session}/{batch}.fits",
        record="<run>/work/prewarp/{session}/{batch}.json",
        fields="<run>/work/weights/{session}.fits",
        weights="<run>/work/weights/{session}.json",
        normalization="<run>/work/normalization/{session}.json",
        grid="<run>/artifacts/tile_grid.json",
        channels="<run>/artifacts/channel_split.json",
        layers=so_far("<run>/work/template/{session}.fits"),
        layer_record="<run>/work/template/{session}.json",
        colour_layers=so_far("<run>/work/template_rgb/{session}.fits"),
        registration="<run>/work/registration/{session}.json",
        clusters="<run>/work/state_clustering/{session}.json",
    output:
        sums="<run>/work/sums/{session}/{batch}.fits",
        drizzled="<run>/work/drizzled/{session}/{batch}.fits",
        flat="<run>/work/flat/{session}/{batch}.fits",
        flat_drizzled="<run>/work/flat_drizzled/{session}/{batch}.fits",
        record="<run>/work/sums/{session}/{batch}.json",
    log:
        text="<run>/logs/reconstruct_batch/{session}_{batch}.log",
        reason="<run>/logs/reconstruct_batch/{session}_{batch}.reason.json",
    benchmark:
        "<run>/benchmarks/reconstruct_batch/{session}_{batch}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: batch_threads
    resources:
        mem_mb=memory(2000),
    params:
        options=REJECTION,
        lights=lights,
        drizzle=config["drizzle"],
        cosmetic=config["prewarp"]["cosmetic"],
        by_cluster=lambda wildcards: by_cluster([wildcards.session]),
        code=code("reconstruct_batch.py"),
    script:
        "../scripts/reconstruct_batch.py"


rule tile_reconstruction:
    """Add up the partial sums, in the order of the plan."""
    input:
        sums=of_run("<run>/work/sums/{session}/{batch}.fits"),
        drizzled=of_run("<run>/work/drizzled/{session}/{batch}.fits"),
        records=of_run("<run>/work/sums/{session}/{batch}.json"),
        fields=of_sessions("<run>/work/weights/{session}.fits"),
        weights=of_sessions("<run>/work/weights/{session}.json"),
        clusters=of_sessions("<run>/work/state_clustering/{session}.json"),
        overlap="<run>/artifacts/common_overlap.json",
        grid="<run>/artifacts/tile_grid.json",
        channels="<run>/artifacts/channel_split.json",
    output:
        **stack_files("<run>/work/reconstruction", RECONSTRUCTION),
        **stack_files("<run>/work/reconstruction_rgb", RECONSTRUCTION_RGB, "{}_rgb"),
        record="<run>/artifacts/tile_reconstruction.json",
    log:
        text="<run>/logs/tile_reconstruction.log",
        reason="<run>/logs/tile_reconstruction.reason.json",
    benchmark:
        "<run>/benchmarks/tile_reconstruction.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: run_threads
    resources:
        mem_mb=memory(1500),
    params:
        n_batches=N_BATCHES,
        put_back_share=config["tile_reconstruction"]["put_back_share"],
        source=config["stacking"]["source"],
        by_cluster=lambda wildcards: by_cluster(SESSIONS),
        code=code("tile_reconstruction.py"),
    script:
        "../scripts/tile_reconstruction.py"
