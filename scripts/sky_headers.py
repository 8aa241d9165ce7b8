"""The products: pixels of the stack and of its colours, with all that is known of them and sky coordinates."""

from tilestack import job, plate, products


def sky_headers(paths, out):
    """paths and out: products by name; paths also: header, mosaic_header, wcs, mosaic_wcs."""
    solutions = [plate.cards_in(paths[key]) for key in ("mosaic_wcs", "wcs")]
    known = {key: products.read_header(paths[key]) for key in ("header", "mosaic_header")}
    inputs = products.read_inputs(paths["mosaic_header"])
    for name, path in out.items():
        cards, history = known["header" if name == "image" or name.endswith("_rgb") else "mosaic_header"]
        if name in ("image", "mosaic"):
            plate.write_product(paths[name], path, solutions, cards, [inputs], history)
        else:
            kind = name.removesuffix("_rgb")
            plate.write_product(paths[name], path, solutions, cards | {"CONTENT": f"{kind} stack, for comparison"})


if __name__ == "__main__":
    with job.started(snakemake):
        sky_headers(dict(snakemake.input.items()), dict(snakemake.output.items()))
