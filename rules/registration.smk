# Phases 0-2. The gate (scan_input) goes first by priority; as input of every batch, each new night would rerun all.


rule demo_lights:
    """Make the demonstration series; no other run asks for this rule."""
    output:
        directory("<run>/lights"),
    log:
        text="<run>/logs/demo_lights.log",
        reason="<run>/logs/demo_lights.reason.json",
    benchmark:
        "<run>/benchmarks/demo_lights.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: session_threads
    resources:
        mem_mb=memory(1500),
    params:
        options=config["demonstration"],
        names=DEMO_LIGHTS,
        code=code("simulate_lights.py"),
    script:
        "../scripts/simulate_lights.py"


rule scan_frames:
    """Gather the facts about the lights of a batch."""
    input:
        DEMO,
    output:
        "<run>/work/scan/{session}/{batch}.json",
    log:
        text="<run>/logs/scan_frames/{session}_{batch}.log",
        reason="<run>/logs/scan_frames/{session}_{batch}.reason.json",
    benchmark:
        "<run>/benchmarks/scan_frames/{session}_{batch}.tsv"
    priority: 100
    conda:
        "../envs/tilestack.yaml"
    threads: batch_threads
    resources:
        mem_mb=memory(1000),
    params:
        lights=lights,
        code=code("scan_frames.py"),
    script:
        "../scripts/scan_frames.py"


rule scan_input:
    """Decide on the lights of the run, and stop it where it cannot go on."""
    input:
        of_run("<run>/work/scan/{session}/{batch}.json"),
    output:
        "<run>/artifacts/scan_input.json",
    log:
        text="<run>/logs/scan_input.log",
        reason="<run>/logs/scan_input.reason.json",
    benchmark:
        "<run>/benchmarks/scan_input.tsv"
    priority: 100
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        plan=lambda wildcards: SESSIONS,
        scan=lambda wildcards: config["scan"],
        assumptions=config["assumptions"],
        drizzle=config["drizzle"],
        clusters=lambda wildcards: {
            "split_sessions": sum(not isinstance(grouping(session), str) for session in SESSIONS),
            "flat_weights": config["synthetic"]["weighting"] == "global",
            "by_cluster": by_cluster(SESSIONS),
        },
        run_folder=lambda wildcards: RUN,
        code=code("scan_input.py"),
    script:
        "../scripts/scan_input.py"


rule detect_stars:
    """List the stars and the suspicious pixels of a batch."""
    input:
        DEMO,
        facts=of_run_so_far("<run>/work/scan/{session}/{batch}.json"),
    output:
        "<run>/work/stars/{session}/{batch}.json",
    log:
        text="<run>/logs/detect_stars/{session}_{batch}.log",
        reason="<run>/logs/detect_stars/{session}_{batch}.reason.json",
    benchmark:
        "<run>/benchmarks/detect_stars/{session}_{batch}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: batch_threads
    resources:
        mem_mb=memory(1500),
    params:
        lights=lights,
        n_batches=lambda wildcards: {s: N_BATCHES[s] for s in sessions_so_far(wildcards.session)},
        filters=lambda wildcards: {s: SESSIONS[s]["filter"] for s in sessions_so_far(wildcards.session)},
        scan=lambda wildcards: config["scan"],
        tolerance_percent=config["assumptions"]["exposure_time_tolerance_percent"],
        sigma=config["registration"]["sigma"],
        max_stars=config["registration"]["max_stars"],
        code=code("detect_stars.py"),
    script:
        "../scripts/detect_stars.py"


rule reference:
    """Choose the reference frame, from the first session only, so that it never changes."""
    input:
        stars=expand("<run>/work/stars/{session}/{batch}.json", session=FIRST, batch=batches_of(FIRST)),
        other=other_run,
    output:
        "<run>/work/reference.json",
    log:
        text="<run>/logs/reference.log",
        reason="<run>/logs/reference.reason.json",
    benchmark:
        "<run>/benchmarks/reference.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        batches=batches_of(FIRST),
        wanted=lambda wildcards: config["registration"]["reference"],
        code=code("reference.py"),
    script:
        "../scripts/reference.py"


rule registration:
    """Find the transforms of a session to the lattice."""
    input:
        reference="<run>/work/reference.json",
        stars=of_session("<run>/work/stars/{session}/{batch}.json"),
        first=of_first("<run>/work/registration/{session}.json"),
    output:
        "<run>/work/registration/{session}.json",
    log:
        text="<run>/logs/registration/{session}.log",
        reason="<run>/logs/registration/{session}.reason.json",
    benchmark:
        "<run>/benchmarks/registration/{session}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: session_threads
    resources:
        mem_mb=memory(1000),
    params:
        batches=lambda wildcards: batches_of(wildcards.session),
        folder=lambda wildcards: SESSIONS[wildcards.session]["folder"],
        first_folder=lambda wildcards: None if other_run(wildcards) else SESSIONS[FIRST]["folder"],
        model=config["registration"]["model"],
        min_matches=config["registration"]["min_matches"],
        max_residual_px=config["registration"]["max_residual_px"],
        code=code("registration.py"),
    script:
        "../scripts/registration.py"


rule registration_summary:
    """Gather the transforms of the sessions, with drift, dither and rotation."""
    input:
        reference="<run>/work/reference.json",
        sessions=of_sessions("<run>/work/registration/{session}.json"),
    output:
        "<run>/artifacts/registration.json",
    log:
        text="<run>/logs/registration_summary.log",
        reason="<run>/logs/registration_summary.reason.json",
    benchmark:
        "<run>/benchmarks/registration_summary.tsv"
    conda:
        "../envs/tilestack.yaml"
    resources:
        mem_mb=memory(500),
    params:
        code=code("registration_summary.py"),
    script:
        "../scripts/registration_summary.py"


rule prewarp:
    """Resample a batch onto the lattice of the run, and measure its sky and noise."""
    input:
        DEMO,
        registration="<run>/work/registration/{session}.json",
        reference="<run>/work/reference.json",
    output:
        image="<run>/work/prewarp/{session}/{batch}.fits",
        record="<run>/work/prewarp/{session}/{batch}.json",
    log:
        text="<run>/logs/prewarp/{session}_{batch}.log",
        reason="<run>/logs/prewarp/{session}_{batch}.reason.json",
    benchmark:
        "<run>/benchmarks/prewarp/{session}_{batch}.tsv"
    conda:
        "../envs/tilestack.yaml"
    threads: batch_threads
    resources:
        mem_mb=memory(2000),
    params:
        lights=lights,
        cfa=config["prewarp"]["cfa"],
        cosmetic=config["prewarp"]["cosmetic"],
        code=code("prewarp.py"),
    script:
        "../scripts/prewarp.py"
