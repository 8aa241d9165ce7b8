"""The report: one HTML file, the table of frames as CSV, and the figures for Snakemake's own report."""

from pathlib import Path

from tilestack import files, job
from tilestack.report import contents, drawing, frametable, gallery, page, pictures


def report(run_folder, out):
    """out: page, table, figures (folder/<name>.svg, of gallery.ALWAYS), pictures (folder/<preview>.jpg)."""
    run = contents.read(run_folder)
    rows = frametable.build(run["records"])
    shown = pictures.gather(run)
    drawn = gallery.draw(run, rows, shown)
    frametable.write_csv(out["table"], rows)
    for path in out["figures"]:
        with files.replacing(path) as draft:
            Path(draft).write_text(drawing.standalone(drawn[Path(path).stem]))
    for path in map(Path, out["pictures"]):
        preview = Path(run_folder, "outputs/previews", f"{path.stem}.png")
        with files.replacing(path) as draft:
            Path(draft).write_bytes(pictures.encoded(pictures.shrunk(preview, pictures.COMPARED_PX), "jpeg"))
    with files.replacing(out["page"]) as draft:
        Path(draft).write_text(page.render(run, rows, shown, drawn), encoding="utf-8")


if __name__ == "__main__":
    with job.started(snakemake):
        report(snakemake.params.run_folder, dict(snakemake.output.items()))
