import numpy as np
import pytest

from tilestack.kernels import drizzle, rawpixels


@pytest.mark.parametrize("dtype", [">i2", "<i2", ">i4", ">f4", "u1"])
def test_unpack__gives_values_and_marks_of_every_form(dtype):
    codes = np.random.default_rng(9).integers(1, 100, (7, 20)).astype(dtype)
    bad = np.zeros(codes.shape, bool)
    bad[2, 4:9] = True
    blank = None if dtype == ">f4" else int(codes[3, 6])
    image, marks = np.full((9, 17), 7, np.float32), np.full((9, 17), 9, np.uint8)
    rawpixels.unpack(codes, bad, (3, 17), 1000.0, 2.0, blank, 1180.0, image, marks)
    values, missing = 1000 + 2 * codes.astype(float), bad | (codes == (-1 if blank is None else blank))
    np.testing.assert_array_equal(image[:7, :14], np.where(missing, np.nan, values)[:, 3:17])
    expected = np.where(missing, drizzle.MISSING, np.where(values >= 1180, drizzle.CLIPPED, drizzle.KEPT))
    np.testing.assert_array_equal(marks[:7, :14], expected[:, 3:17])
    # What lies beyond the light counts for nothing.
    assert (marks[7:] == drizzle.MISSING).all() and (marks[:, 14:] == drizzle.MISSING).all()
