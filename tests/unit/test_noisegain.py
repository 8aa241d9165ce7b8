import numpy as np
import pytest

from tilestack import bayer, distortion, noisegain, prewarp
from tilestack.kernels import coadd
from tilestack.kernels import warp as kernel

# Pattern of the frame, of the lattice, and how a mosaic is resampled.
KINDS = [
    (None, None, "demosaic"),
    ("RGGB", "RGGB", "demosaic"),
    ("GRBG", "RGGB", "demosaic"),
    ("BGGR", "BGGR", "subplane"),
    ("GRBG", "RGGB", "subplane"),
]
SIZE = 72


def table_of(pattern, lattice_pattern, cfa, stretch):
    cell = bayer.channel_cell(pattern)
    plane_of, step, offsets = prewarp.layout(cell, bayer.channel_cell(lattice_pattern), cfa)
    parts = (tuple(each.ravel().tolist()) for each in (cell, plane_of))
    return noisegain.table(*parts, tuple(map(tuple, offsets.tolist())), step, stretch)


def warped(image, to_frame, box, pattern, lattice_pattern, cfa, stretch, lens=None):
    """What PREWARP makes of a raw image in a box of the lattice."""
    cell = bayer.channel_cell(pattern)
    plane_of, step, offsets = prewarp.layout(cell, bayer.channel_cell(lattice_pattern), cfa)
    planes = prewarp.planes_of(image, cell, step, offsets)
    clear = np.zeros(image.shape, np.uint8)
    return kernel.warp(planes, plane_of, step, offsets, clear, to_frame, box, lens=lens, stretch=stretch)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stretch", [1.0, 1.4])
@pytest.mark.parametrize(
    "shift", [(0, 0), (0.5, 0.5), (1.0, 0.25), (13 / 32, 59 / 32), (1.75, 31 / 32), (63 / 32, 1 / 32), (-17 / 32, 3.75)]
)
def test_table__is_what_the_warp_makes_of_each_raw_pixel(kind, stretch, shift):
    # A resampled pixel is linear in the raw ones: what it takes from each tells its variance, with no noise at all.
    # Under a shift all repeats every two pixels, so one raw pixel of each phase tells what all pixels of a phase take.
    middle, (dx, dy) = SIZE // 2, shift
    to_frame = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
    box = (14, 14, SIZE - 28, SIZE - 28)
    squares = np.zeros((2, 2))
    for y, x in np.ndindex(2, 2):
        image = np.zeros((SIZE, SIZE), np.float32)
        image[middle + y, middle + x] = 1
        taken = warped(image, to_frame, box, *kind, stretch).astype(float) ** 2
        assert not taken[[0, -1]].any() and not taken[:, [0, -1]].any()
        squares += [[taken[v::2, u::2].sum() for u in (0, 1)] for v in (0, 1)]
    table = table_of(*kind, stretch)
    n = noisegain.PER_PIXEL
    assert table.shape == (4, 2 * n, 2 * n) and table.dtype == np.float32
    for phase, (y, x) in enumerate(np.ndindex(2, 2)):
        row, column = (round(place % 2 * n) % (2 * n) for place in (y + dy, x + dx))
        assert table[phase, row, column] == pytest.approx(squares[y, x], rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("angle_deg", "scale", "bent_px"), [(17.0, 1.0, 0.0), (200.0, 1.0, 0.0), (-40.0, 1.4, 0.0), (0.0, 1.0, 6.0)]
)
def test_noise_gain__is_the_variance_of_noise_through_a_turned_frame(kind, angle_deg, scale, bent_px):
    # The table, where in it the kernels look, and the area: against white noise through the whole of PREWARP.
    rng = np.random.default_rng(1)
    a, size, sigma = np.radians(angle_deg), 300, 3.0
    matrix = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    centre = np.array([(size - 1) / 2, (size - 1) / 2])
    box = (-61, 35, 120, 120)
    to_frame = np.column_stack([matrix, centre - matrix @ [35 + 59.5, -61 + 59.5]])
    area = scale**-2
    # A lens that moves the corners by so much: without it an unturned frame has one place in the pixel everywhere.
    bend = {"centre": centre.tolist(), "length": 100.0, "coefficients": np.zeros((7, 2))}
    bend["coefficients"][[3, 6], [0, 1]] = bent_px
    lens = distortion.as_array(bend) if bent_px else None
    table = table_of(*kind, scale)
    places = coadd.Places(*box[:2], to_frame[None], lens, table[None], np.zeros(1, np.int64), np.array([area]))
    fields = np.ones((1, 5, 1, 2, 2), np.float32)
    fields[:, 2] = sigma**2 * area
    sums, _, _ = coadd.accumulate(
        np.zeros((1, *box[2:]), np.int16),
        np.zeros((1, *box[2:]), np.uint8),
        np.zeros(1),
        np.ones(1),
        fields,
        (0.0, 0.0, 200.0),
        np.zeros((2, 2), np.int64),
        places,
        np.zeros(box[2:], np.float32),
        0.0,
        np.zeros(1, bool),
        np.ones(1),
    )
    expected = sums[0][coadd.SUMS.index("W2V")]
    found = np.mean(
        [
            warped(rng.normal(0, sigma, (size, size)).astype(np.float32), to_frame, box, *kind, scale, lens) ** 2
            for _ in range(30)
        ],
        axis=0,
    )
    assert np.isfinite(found).all()
    assert (found / expected).mean() == pytest.approx(1, abs=0.01)
    # In each phase, and among its pixels with least and with most noise.
    for y, x in np.ndindex(2, 2):
        ratio, order = (found / expected)[y::2, x::2].ravel(), expected[y::2, x::2].ravel().argsort()
        for part in np.array_split(ratio[order], 3):
            assert part.mean() == pytest.approx(1, abs=0.025)


def test_table__of_a_kernel_too_little_stretched_is_the_plain_one():
    plain = table_of(None, None, "demosaic", 1.0)
    np.testing.assert_array_equal(plain, table_of(None, None, "demosaic", 1.05))
    # On a raw pixel nothing changes; half-way between four it is the sum of the squared weights of both axes.
    weights = np.sinc(np.arange(-2.5, 3)) * np.sinc(np.arange(-2.5, 3) / 3)
    halfway = ((weights / weights.sum()) ** 2).sum() ** 2
    assert plain[0, 0, 0] == 1 and plain[0, 32, 32] == 1
    assert plain[0, 16, 16] == pytest.approx(halfway, rel=1e-6) == pytest.approx(plain.min(), rel=1e-6)
