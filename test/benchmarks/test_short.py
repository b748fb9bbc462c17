"""README's short form is made from the page: figures and days agree, whoever wins."""

import pytest

from benchmarks import page, short

PAGE = """
<!-- result: a -->
`python x.py`; 2026-01-02 10:00 UTC; 2 CPUs

| candidate | one B1 | two B1 (noisy: others used 0.3 CPUs) |
| --- | --- | --- |
| fp32 | 14.7 ms (14.6 ms) | 4708 us (4330 us) |
| torch.ao FX x86 | 2171 us (2127 us), 34.1 dB |  |

| row | figure | target | floor | got | verdict |
| --- | --- | --- | --- | --- | --- |
| two B1 (noisy: others used 0.3 CPUs) | vs fp32 | - | 1.00x | 0.90x | FLOOR MISSED |
<!-- end -->
<!-- result: b -->
`python y.py`; 2026-01-03 10:00 UTC; 2 CPUs

| row | fp32 | torch_ao_ext |
| --- | --- | --- |
| one | 2.41 us (2.39 us) | 2.60 us (2.56 us), inf dB |
<!-- end -->
"""


def test_readme_is_of_the_page():
    readme = page.README.read_text()
    assert short.filled(readme, page.PAGE.read_text()) == readme


def test_tables_are_read_in_both_layouts():
    values, busy = short.timings(PAGE, "a")
    assert values == {
        "one B1": {"fp32": (14.7, None), "torch.ao FX x86": (2.171, "34.1")},
        "two B1": {"fp32": (4.708, None)},
    }  # fmt: skip
    assert busy == {"two B1"}
    values, busy = short.timings(PAGE, "b")
    assert values["one"]["torch_ao_ext"] == (pytest.approx(0.0026), "inf") and not busy
    assert short.figures(PAGE, "a") == {("two B1", "vs fp32"): "0.90x"}
    assert short.date(PAGE, "b") == "2026-01-03"
    assert short.timings(PAGE, "none") == ({}, set())


def test_the_fastest_counts_and_ours_not_below_the_peer():
    measured = {
        "fp32": (9.0, None), "torch.ao FX x86": (3.0, "30.0"), "torch.ao FX onednn": (4.0, "40.0"),
        "openvino nncf": (2.0, "35.0"), "torch_ao_ext pt2e": (1.0, "34.4"),
        "torch_ao_ext dynamic": (2.5, "34.5"),
    }  # fmt: skip
    wanted = ["torch.ao FX x86 3.00, 30.0 dB", "openvino nncf 2.00, 35.0 dB", "dynamic 2.50, 34.5 dB"]
    assert short.sides(measured) == wanted
    del measured["torch_ao_ext dynamic"]
    assert short.sides(measured)[2] == "pt2e 1.00, 34.4 dB"
    del measured["torch_ao_ext pt2e"]
    assert short.sides(measured)[2] == ""


def test_a_readme_without_a_place_is_refused():
    with pytest.raises(ValueError, match="no place for the short form"):
        short.filled("text", PAGE)
