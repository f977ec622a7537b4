"""benchmarks/wenet.py: it runs through at a tiny size and says everything that it promises."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import ROOT

from benchmarks.wenet_errors import differing_share, edit_distance
from mirrorchat.cli.evaluation.error_rate import edits

TEXTS = st.lists(st.sampled_from("abcd"), max_size=12)
FIELDS = {
    "int8_vs_torchscript",
    "int8_vs_torchscript_with_our_search",
    "fp32_vs_torchscript",
    "beam_vs_python",
    "batch8_vs_1",
    "batch8_vs_1_fp32",
    "batch8_vs_1_short",
    "wenet_vs_ours",
    "wenet_vs_ours_fp32",
    "int8_ms",
    "beam_ms",
    "rss_mb",
    "tokens",
    "int8_tokens_differ",
    "torchscript_tokens_differ",
    "stage_ms",
    "product_gmac_s",
    "trained_tokens_differ",
}


def test_last_line_holds_every_figure() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "wenet.py"), "--json", "--rounds", "1", "--sizes", "tiny"]
    command += ["--seconds", "1", "--no-trained"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert figures.keys() >= FIELDS
    assert figures["sizes"].keys() == {"tiny"}
    assert figures["tokens"] > 0
    assert 0 <= figures["int8_tokens_differ"] < 1
    assert figures["stage_ms"].keys() == {"int8", "fp32", "runtime"}
    assert figures["settings"] == {"threads": 1, "seconds": 1.0, "rounds": 1}
    assert all(milliseconds > 0 for milliseconds in figures["ms"].values())


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [((), (), 0), ((), (1, 2), 2), ((1, 2, 3), (1, 3), 1), ((1, 2), (2, 1), 2), ((1, 2, 3), (1, 4, 3), 1)],
)
def test_edit_distance(one: tuple[int, ...], other: tuple[int, ...], distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


def test_differing_share_is_of_the_expected_tokens() -> None:
    assert differing_share([(1, 2), (3,)], [(1, 2), (3, 4)]) == pytest.approx(0.25)
    assert differing_share([()], [()]) == 0.0


@given(TEXTS, TEXTS)
def test_edits_of_the_evaluation_are_as_few(said: list[str], heard: list[str]) -> None:
    found = edits(said, heard)
    assert found.errors == edit_distance(tuple(map(ord, said)), tuple(map(ord, heard)))
    assert found.inserted - found.deleted == len(heard) - len(said)
    assert found.errors == edits(heard, said).errors
    assert edits(said, said).errors == 0
