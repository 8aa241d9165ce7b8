"""Files that no camera writes: real and simulated lights with faults put in, by a seed."""

import contextlib
import gzip
import io
import random
import warnings

import hypothesis
import numpy as np
from astropy.io import fits
from hypothesis import strategies

# Keywords that decide how many bytes are read and what they mean, and values that they should not have.
KEYS = (
    "SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 NAXIS3 BZERO BSCALE BLANK EXTEND PCOUNT GCOUNT GROUPS XTENSION TFIELDS "
    "TFORM1 THEAP ZIMAGE ZBITPIX ZNAXIS ZNAXIS1 ZNAXIS2 ZTILE1 ZTILE2 ZCMPTYPE ZQUANTIZ ZDITHER0 ZNAME1 ZVAL1 "
    "ZBLANK ZSCALE ZZERO EXPTIME EGAIN GAIN BAYERPAT ROWORDER XBAYROFF YBAYROFF DATE-OBS FILTER IMAGETYP "
    "INSTRUME OBJECT RA DEC XPIXSZ YPIXSZ FOCALLEN SATURATE NCOMBINE STACKCNT LIVETIME TOTALEXP CCD-TEMP "
).split()
VALUES = (
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "16",
    "-32",
    "64",
    "999",
    "65536",
    "100000",
    "999999999",
    "9999999999999999999",
    "1E308",
    "-1E308",
    "1E-320",
    "1E999",
    "NAN",
    "INF",
    "-INF",
    "T",
    "F",
    "",
    "'",
    "''",
    "'RGGB'",
    "'XTRANS'",
    "'../../../../tmp/tilestack-escaped'",
    "'/tmp/tilestack-escaped'",
    "'$(touch /tmp/tilestack-escaped)'",
    "'`touch /tmp/tilestack-escaped`; {run} {0} %s %n'",
    "'!!python/object/apply:os.system [touch /tmp/tilestack-escaped]'",
    "'<script>alert(1)</script>'",
    "'=cmd|x'",
    "'RICE_1'",
    "'GZIP_1'",
    "'HCOMPRESS_1'",
    "'PLIO_1'",
    "'NOCOMPRESS'",
    "'1PB(99999999)'",
    "'1QJ'",
    "'9999-99-99T99:99:99'",
    "'2026-03-14T23:00:00' / \xff\x00",
    "(1,2)",
    "10,0",
)


def card(key, value):
    """80 bytes of a header, right or wrong."""
    return f"{key:8.8}= {value}".encode("latin-1")[:80].ljust(80)


@contextlib.contextmanager
def quiet():
    """Without what astropy says about headers: some cameras write odd ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def packed(content, kind):
    """A light as .gz, or as .fz by a kind of compression."""
    if kind == "gz":
        return gzip.compress(content, 1, mtime=0)
    with quiet(), fits.open(io.BytesIO(content)) as hdus:
        out = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(hdus[0].data, hdus[0].header, kind)]).writeto(out)
    return out.getvalue()


def cropped(content, rows, columns):
    """The first rows and columns of a light with its whole header."""
    with quiet(), fits.open(io.BytesIO(content)) as hdus:
        out = io.BytesIO()
        fits.PrimaryHDU(np.ascontiguousarray(hdus[0].data[:rows, :columns]), hdus[0].header).writeto(out)
    return out.getvalue()


def mutated(content, rng):
    """A light with one to four faults."""
    zipped = content[:2] == b"\x1f\x8b"
    if zipped and rng.random() < 0.7:  # faults of what is inside
        return gzip.compress(mutated(gzip.decompress(content), rng), 1, mtime=0)
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(FAULTS)(content, rng)
    return bytes(content)


def _changed_card(content, rng):
    """A card of the file replaced, most often by one of the same keyword."""
    # Headers of extensions begin at a block too.
    starts = [at for at in range(0, min(len(content), 80000), 80) if content[at + 8 : at + 10] == b"= "]
    if not starts:
        return content
    at = rng.choice(starts)
    key = content[at : at + 8].decode("latin-1") if rng.random() < 0.6 else rng.choice(KEYS)
    content[at : at + 80] = card(key, rng.choice(VALUES))
    return content


def _changed_key(content, rng):
    """The value of a keyword that matters, wherever it stands."""
    for key in rng.sample(KEYS, len(KEYS)):
        at = content.find(f"{key:8}=".encode())
        if at >= 0 and at % 80 == 0:
            content[at : at + 80] = card(key, rng.choice(VALUES))
            return content
    return content


def _lost_card(content, rng):
    at = 80 * rng.randrange(max(len(content[:8640]) // 80, 1))
    return content[:at] + content[at + 80 :]


def _no_end(content, rng):
    return content.replace(b"END     ", b"COMMENT ", 1)


def _header_bytes(content, rng):
    for _ in range(rng.randint(1, 20)):
        if content:
            content[rng.randrange(min(len(content), 5760))] = rng.randrange(256)
    return content


def _data_bytes(content, rng):
    for _ in range(rng.randint(1, 400)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    return content


def _cut(content, rng):
    return content[: rng.randrange(len(content) + 1)]


def _added(content, rng):
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.choice((1, 80, 2880, 5000))) + content[at:]


def _blocks(content, rng):
    """Blocks of the file in another order, or twice."""
    n = max(len(content) // 2880, 1)
    one, other = 2880 * rng.randrange(n), 2880 * rng.randrange(n)
    return content[:one] + content[other : other + 2880] + content[one:]


def _constant(content, rng):
    start = rng.randrange(len(content) + 1)
    content[start:] = bytes([rng.choice((0, 127, 128, 255))]) * (len(content) - start)
    return content


FAULTS = (
    _changed_card,
    _changed_card,
    _changed_key,
    _changed_key,
    _lost_card,
    _no_end,
    _header_bytes,
    _data_bytes,
    _cut,
    _added,
    _blocks,
    _constant,
)


def written_out():
    """Files made to hurt, by name: claims of size, bombs, headers without an end, and the like."""

    def light(*cards, data=b""):
        header = b"".join([card("SIMPLE", "T"), *cards, b"END".ljust(80)])
        return header.ljust(-(-len(header) // 2880) * 2880) + data

    huge = [card("BITPIX", "16"), card("NAXIS", "2"), card("NAXIS1", "2000000"), card("NAXIS2", "2000000")]
    none = [card("BITPIX", "8"), card("NAXIS", "0")]
    plane = [card("BITPIX", "16"), card("NAXIS", "2"), card("NAXIS1", "100"), card("NAXIS2", "100")]
    pixels = bytes(range(250)) * 80
    rice = bytearray(packed(light(*plane, data=pixels), "RICE_1"))

    def lying(*changes):
        content = bytearray(rice)
        for key, value in changes:
            at = content.find(f"{key:8}=".encode())
            content[at : at + 80] = card(key, value)
        return bytes(content)

    return {
        "empty.fits": b"",
        "claims 8 TB.fits": light(*huge, data=pixels),
        "claims 8 TB.fits.gz": gzip.compress(light(*huge, data=pixels), mtime=0),
        "claims 8 TB.fits.fz": lying(("ZNAXIS1", "2000000"), ("ZNAXIS2", "2000000")),
        "one tile of 40 GB.fits.fz": lying(("ZTILE1", "200000"), ("ZTILE2", "100000")),
        "one tile and rows of 40 GB.fits.fz": lying(
            ("ZNAXIS1", "200000"), ("ZNAXIS2", "100000"), ("ZTILE1", "200000"), ("ZTILE2", "100000"), ("NAXIS2", "1")
        ),
        "lying heap.fits.fz": lying(("PCOUNT", "9999999999")),
        "lying table.fits.fz": lying(("NAXIS2", "999999999")),
        "bomb.fits.gz": gzip.compress(bytes(1 << 30), 9, mtime=0),
        "bomb with a header.fits.gz": gzip.compress(light(*huge) + bytes(1 << 29), 9, mtime=0),
        "no end.fits": card("SIMPLE", "T") + card("BITPIX", "16") + b" " * (8 << 20),
        "comments.fits": card("SIMPLE", "T") + b"COMMENT x".ljust(80) * 100_000 + light(*plane, data=pixels),
        "many headers.fits": light(*none) + b"".join([card("XTENSION", "'IMAGE'"), *none, b"END"]).ljust(2880) * 5000,
        "negative axis.fits": light(*plane[:2], card("NAXIS1", "-100"), card("NAXIS2", "-100"), data=pixels),
        "no axis.fits": light(*plane[:2], data=pixels),
        "1000 axes.fits": light(card("BITPIX", "16"), card("NAXIS", "999"), data=pixels),
        "2e9 axes.fits": light(card("BITPIX", "16"), card("NAXIS", "2000000000"), data=pixels),
        "2e9 axes behind no end.fits": light(
            b"COMMENT x".ljust(77) + b"END", b" " * 80, card("BITPIX", "16"), card("NAXIS", "2000000000"), data=pixels
        ),
        "empty axis.fits": light(*plane[:3], card("NAXIS2", "0")),
        "one pixel.fits": light(*plane[:2], card("NAXIS1", "1"), card("NAXIS2", "1"), data=pixels[:2].ljust(2880)),
        "one row.fits": light(*plane[:2], card("NAXIS1", "10000"), card("NAXIS2", "1"), data=pixels.ljust(20160)),
        "one column.fits": light(*plane[:2], card("NAXIS1", "1"), card("NAXIS2", "10000"), data=pixels.ljust(20160)),
        "zero scale.fits": light(*plane, card("BSCALE", "0"), data=pixels.ljust(20160)),
        "scale nan.fits": light(*plane, card("BSCALE", "NAN"), data=pixels.ljust(20160)),
        "scale huge.fits": light(*plane, card("BSCALE", "1E300"), card("BZERO", "-1E300"), data=pixels.ljust(20160)),
        "random groups.fits": light(
            card("BITPIX", "16"), card("NAXIS", "2"), card("NAXIS1", "0"), card("NAXIS2", "100"), card("GROUPS", "T"),
            card("PCOUNT", "9"), card("GCOUNT", "999999"), data=pixels.ljust(20160),
        ),
    }  # fmt: skip


@strategies.composite
def headers(draw):
    """Lights of 60 x 100 pixels by hypothesis: any cards in any order, some of them of the right kind."""
    values = strategies.one_of(
        strategies.sampled_from(VALUES),
        strategies.integers().map(str),
        strategies.floats().map(repr),
        strategies.text(strategies.characters(codec="latin-1"), max_size=70),
        strategies.text(strategies.characters(min_codepoint=32, max_codepoint=126), max_size=66).map(repr),
    )
    shape = [("BITPIX", "16"), ("NAXIS", "2"), ("NAXIS1", "100"), ("NAXIS2", "60")]
    cards = draw(strategies.lists(strategies.tuples(strategies.sampled_from(KEYS), values), max_size=12))
    if draw(strategies.booleans()):  # the structure stands, the rest is free
        cards = shape + [(key, value) for key, value in cards if key not in ("NAXIS", "NAXIS1", "NAXIS2", "BITPIX")]
    header = b"".join([card("SIMPLE", "T"), *(card(*pair) for pair in cards), b"END".ljust(80)])
    header = header.ljust(-(-len(header) // 2880) * 2880)
    return header + random.Random(len(cards)).randbytes(draw(strategies.sampled_from((0, 100, 14400)))) + b"\0" * 2880


def by_hypothesis(n, seed):
    """n files as (name, content) of the strategy above."""
    found = []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=n, database=None, deadline=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(headers())
    def collect(content):
        found.append((f"h{len(found):05d}.fits", content))

    collect()
    return found


def series(n, seed, sources):
    """n files as (name, content): those made to hurt, then faults in the sources, in turn.

    sources : list of (name ending, content)
    """
    rng = random.Random(seed)
    files = list(written_out().items())[:n]
    for k in range(n - len(files)):
        ending, content = sources[k % len(sources)]
        files.append((f"f{k:05d}{ending}", mutated(content, rng)))
    return files
