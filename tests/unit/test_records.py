import json

import numpy as np
import pytest

from tilestack import records


def test_write__keeps_numbers_and_turns_what_is_not_finite_into_null(tmp_path):
    record = {"a": np.float32(1.5), "b": [np.nan, np.inf, 2], "c": np.arange(3), "d": np.bool_(True), 5: None}
    records.write(tmp_path / "r.json", record)
    assert records.read(tmp_path / "r.json") == {"a": 1.5, "b": [None, None, 2], "c": [0, 1, 2], "d": True, "5": None}


def test_write__leaves_the_old_file_where_it_fails(tmp_path):
    records.write(tmp_path / "r.json", {"a": 1})
    with pytest.raises(TypeError):
        records.write(tmp_path / "r.json", {"a": object()})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("digits", [3, 6])
def test_rounded__is_right_to_so_many_digits(digits):
    values = np.random.default_rng(1).lognormal(0, 8, (4, 5))
    values[1, 2] = np.nan
    out = records.array(records.rounded(values, digits))
    np.testing.assert_allclose(out, values, rtol=0.51 * 10 ** (1 - digits))
    assert np.isnan(out[1, 2])


@pytest.mark.parametrize("content", [b"", b'{"cut', b"\xff\xfe"])
def test_read__names_a_damaged_record(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(records.DamagedFile, match="a.json is damaged.*delete it"):
        records.read(tmp_path / "a.json")


def test_write__leaves_no_draft_where_it_fails(tmp_path):
    with pytest.raises(TypeError):
        records.write(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []
