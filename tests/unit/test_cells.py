"""The list of output pixels that drops which were left out fall on."""

import numpy as np

from tilestack import cells


def test_reserve__keeps_what_is_there_and_never_has_room_for_more_than_all_output_pixels():
    list_of = cells.Cells((2, 3, 4))
    assert len(list_of.lost) == len(list_of.lost_cover) == 0
    list_of.reserve(5)
    list_of.lost[:5], list_of.lost_cover[:5], list_of.n_lost[0] = 7, 8, 5
    list_of.reserve(4)
    assert len(list_of.lost) == len(list_of.lost_cover) >= 9
    list_of.reserve(10**9)
    assert len(list_of.lost) == len(list_of.lost_cover) == 2 * 2 * 3 * 4  # rejected and saturated ones
    assert (list_of.lost[:5] == 7).all() and (list_of.lost_cover[:5] == 8).all() and not list_of.lost[5:].any()
    assert list_of.lost.ctypes.data % cells.LINE_BYTES == 0
    before = list_of.lost
    list_of.reserve(3)
    assert list_of.lost is before and np.shares_memory(list_of.lost, before)
