from snakemake.utils import min_version

min_version("9.12")  # pathvars


include: "rules/config.smk"


pathvars:
    run=RUN,


include: "rules/plan.smk"
include: "rules/digest.smk"
include: "rules/job_server.smk"
include: "rules/events.smk"
include: "rules/registration.smk"
include: "rules/metrics.smk"
include: "rules/stacks.smk"
include: "rules/reconstruction.smk"
include: "rules/clusters.smk"
include: "rules/sky.smk"
include: "rules/product.smk"
include: "rules/validation.smk"
include: "rules/report.smk"
include: "rules/efficiency.smk"


report: "rules/captions/workflow.rst"


# Jobs of a second that read and write records: on a cluster the machine that submits runs them, for a submission takes longer.
# Those within a group of profiles/slurm (synthetic_frames, done) go with it.
localrules:
    all,
    channel_split,
    clean_work,
    common_overlap,
    global_metrics,
    global_metrics_summary,
    local_metrics_summary,
    normalization_summary,
    reference,
    registration_summary,
    scan_input,
    session_clusters,
    state_clustering,
    tile_grid,
    verdict,


# Every product, not just the last: a failed job loses all its outputs, and a start makes only what is asked for here.
rule all:
    default_target: True
    input:
        expand("<run>/outputs/{name}", name=PRODUCTS),
        expand("<run>/outputs/previews/{name}", name=PREVIEWS),
        expand("<run>/artifacts/figures/{name}", name=FIGURES),
        expand("<run>/artifacts/{phase}.json", phase=ARTIFACTS),
        REPORT,
        REGISTERED,
        VERDICT,


rule clean_work:
    """Delete the large pixel files; records, sums and templates stay, so nothing has to be made again."""
    log:
        "<run>/logs/clean_work.log",
    conda:
        "envs/tilestack.yaml"
    params:
        folder=f"{RUN}/work/prewarp",  # pathvars reach neither params nor shell
    shell:
        "find {params.folder:q} -name '*.fits' -print -delete > {log:q}"
