"""The CTC searches: against obvious ones, the compiled search against plain Python, in chunks, with hot words."""

import ctypes
import itertools
import math
import shutil
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import tiny_wenet_speech as speech
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ctc_log_probs import KINDS, certain_log_probs, log_probs_of, random_log_probs
from support.native_variants import search_functions_or_skip
from support.places import DATA

from mirrorchat.hardware import native
from mirrorchat.wenet.batch import encode, load_script
from mirrorchat.wenet.ctc import search as ctc_search
from mirrorchat.wenet.ctc.context import MAX_PHRASE_TOKENS, MAX_PHRASES
from mirrorchat.wenet.ctc.native import NativeSearch
from mirrorchat.wenet.ctc.plain import PlainSearch
from mirrorchat.wenet.ctc.search import (
    BEAM,
    MAX_BEAM,
    ContextGraph,
    FloatArray,
    Hypothesis,
    PrefixBeamSearch,
    greedy_search,
    prefix_beam_search,
)
from mirrorchat.wenet.features import fbank

MODELS = DATA / "wenet-tiny"
NAN, INFINITY = float("nan"), float("inf")

Tokens = tuple[int, ...]


@pytest.fixture(params=["plain", "native"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the public functions use one of the two implementations."""
    if request.param == "plain":
        monkeypatch.setattr(ctc_search, "search_library", lambda: None)
    else:
        search_functions_or_skip()
    return str(request.param)


def test_the_search_is_compiled_where_a_compiler_is() -> None:
    if shutil.which("g++") is None:
        pytest.skip("no compiled library: no g++")
    assert native.search_library() is not None
    assert isinstance(PrefixBeamSearch()._search, NativeSearch)


# Against the same search with whole prefixes as keys: slow, and read at a glance


@dataclass
class Paths:
    logs: list[float] = field(default_factory=list)
    best: float = -math.inf
    times: Tokens = ()


@dataclass
class Met:
    blank: Paths = field(default_factory=Paths)
    token: Paths = field(default_factory=Paths)

    def logs(self) -> list[float]:
        return self.blank.logs + self.token.logs

    def likeliest(self) -> Paths:
        return self.blank if self.blank.best > self.token.best else self.token


def log_sum(logs: Sequence[float]) -> float:
    top = max(logs, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(log - top) for log in logs))


def occurrences(tokens: Tokens, phrases: set[Tokens]) -> int:
    """Return how many tokens the phrases have in `tokens`, each place counted for itself."""
    return sum(len(phrase) for end in range(len(tokens) + 1) for phrase in phrases if ends_with(tokens[:end], phrase))


def begun(tokens: Tokens, phrases: set[Tokens]) -> int:
    """Return how many tokens at the end of `tokens` are the beginning of a phrase."""
    starts = {phrase[:length] for phrase in phrases for length in range(len(phrase) + 1)}
    return max((len(start) for start in starts if ends_with(tokens, start)), default=0)


def ends_with(tokens: Tokens, end: Tokens) -> bool:
    return tokens[len(tokens) - len(end) :] == end


def reference_step(live: dict[Tokens, Met], frame: FloatArray, time: int, beam: int) -> dict[Tokens, Met]:
    met: dict[Tokens, Met] = defaultdict(Met)
    for token in np.argsort(-frame, kind="stable")[:beam].tolist():
        score = float(frame[token])
        for prefix, paths in live.items():
            before = paths.likeliest()
            if token == 0:
                met[prefix].blank = Paths([log + score for log in paths.logs()], before.best + score, before.times)
                continue
            added = paths.logs()
            if prefix[-1:] == (token,):
                held, best = met[prefix].token, paths.token.best + score
                held.logs += [log + score for log in paths.token.logs]
                if held.best == -math.inf:
                    held.times = (*paths.token.times[:-1], time)
                held.best = max(held.best, best)
                added, before = paths.blank.logs, paths.blank
            longer = met[(*prefix, token)].token
            longer.logs += [log + score for log in added]
            if before.best + score > longer.best:
                longer.best, longer.times = before.best + score, (*before.times, time)
    for paths in met.values():  # sums in place of lists, which would double with each frame
        paths.blank.logs, paths.token.logs = [log_sum(paths.blank.logs)], [log_sum(paths.token.logs)]
    return met


def reference_search(
    log_probs: FloatArray, beam: int, phrases: set[Tokens] | None = None, bonus: float = 3.0
) -> list[tuple[Tokens, float, Tokens]]:
    """Return tokens, score and frames of the hypotheses, best first."""
    hot = phrases or set()
    live: dict[Tokens, Met] = {(): Met(Paths([0.0], 0.0))}
    for time, frame in enumerate(log_probs):
        ranked = [
            (log_sum(paths.logs()) + bonus * (occurrences(prefix, hot) + begun(prefix, hot)), prefix, paths)
            for prefix, paths in reference_step(live, frame, time, beam).items()
        ]
        live = {prefix: paths for _, prefix, paths in sorted(ranked, key=lambda item: -item[0])[:beam]}
    found = [
        (prefix, log_sum(paths.logs()) + bonus * occurrences(prefix, hot), paths.likeliest().times)
        for prefix, paths in live.items()
    ]
    return sorted(found, key=lambda item: -item[1])


def assert_same(found: Sequence[Hypothesis], expected: Sequence[tuple[Tokens, float, Tokens]]) -> None:
    assert [hypothesis.tokens for hypothesis in found] == [tokens for tokens, _, _ in expected]
    np.testing.assert_allclose([item.score for item in found], [score for _, score, _ in expected], rtol=1e-9)
    possible = [hypothesis.frames for hypothesis in found if hypothesis.score > -math.inf]
    assert possible == [frames for _, score, frames in expected if score > -math.inf]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("sharpness", [0.5, 2.0, 6.0])
@pytest.mark.parametrize(("frames", "tokens", "beam"), [(1, 5, 10), (30, 6, 3), (60, 40, 10), (25, 4, 1)])
def test_the_search_equals_the_reference(frames: int, tokens: int, beam: int, sharpness: float) -> None:
    for seed in range(8):
        log_probs = random_log_probs(frames, tokens, seed, sharpness)
        assert_same(prefix_beam_search(log_probs, beam), reference_search(log_probs, beam))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("code", ["en", "zh"])
@torch.inference_mode()
def test_the_search_equals_the_reference_on_speech(code: speech.Code) -> None:
    model = load_script(MODELS / code / "final.zip")
    for samples in speech.speak(speech.held_out(code)[::6]):
        _, log_probs = encode(model, fbank(samples))
        assert_same(prefix_beam_search(log_probs), reference_search(log_probs, BEAM))


@pytest.mark.usefixtures("engine")
def test_the_search_with_hot_words_equals_the_reference() -> None:
    changed = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        phrases = {tuple(rng.integers(1, 6, rng.integers(1, 5)).tolist()) for _ in range(5)}
        log_probs = random_log_probs(20, 6, seed, 3.0)
        found = prefix_beam_search(log_probs, 6, graph=ContextGraph(sorted(phrases)))
        assert_same(found, reference_search(log_probs, 6, phrases))
        changed += found[0].tokens != prefix_beam_search(log_probs, 6)[0].tokens
    assert changed, "no case in which hot words change the best hypothesis: the test shows nothing"


# Against all alignments


def collapse(path: Tokens) -> Tokens:
    return tuple(token for token, _ in itertools.groupby(path) if token != 0)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_search_finds_every_hypothesis_and_its_whole_probability(seed: int) -> None:
    log_probs = random_log_probs(5, 3, seed, 1.0)
    paths: dict[Tokens, list[float]] = defaultdict(list)
    for path in itertools.product(range(3), repeat=5):
        paths[collapse(path)].append(sum(float(log_probs[time, token]) for time, token in enumerate(path)))
    expected = {tokens: log_sum(logs) for tokens, logs in paths.items()}
    found = {item.tokens: item.score for item in prefix_beam_search(log_probs, beam=MAX_BEAM)}
    likely = {tokens: score for tokens, score in found.items() if score > -math.inf}
    assert likely == pytest.approx(expected, abs=1e-6)
    assert prefix_beam_search(log_probs, beam=MAX_BEAM)[0].tokens == max(expected, key=lambda tokens: expected[tokens])


@pytest.mark.usefixtures("engine")
def test_a_repeated_token_needs_a_blank_between() -> None:
    assert prefix_beam_search(certain_log_probs([1, 0, 1], 2))[0].tokens == (1, 1)
    assert prefix_beam_search(certain_log_probs([1, 1, 1], 2))[0].tokens == (1,)


@pytest.mark.usefixtures("engine")
def test_frames_are_the_last_of_each_token_and_confidences_its_largest() -> None:
    log_probs = certain_log_probs([0, 2, 2, 1, 0, 0, 1, 1], 3)
    log_probs[[1, 2, 3, 6, 7], [2, 2, 1, 1, 1]] = np.log(np.array([0.9, 0.5, 0.75, 0.25, 0.5], np.float32))
    for best in (prefix_beam_search(log_probs)[0], greedy_search(log_probs)):
        assert best.tokens == (2, 1, 1)
        assert best.frames == (2, 3, 7)
        assert best.confidences == pytest.approx((0.9, 0.75, 0.5))
        assert best.confidence == pytest.approx((0.9 * 0.75 * 0.5) ** (1 / 3))


@pytest.mark.usefixtures("engine")
def test_a_probability_that_was_rounded_up_is_1() -> None:
    rounded = certain_log_probs([1, 0], 3) + np.float32(1e-6)
    assert prefix_beam_search(rounded)[0].confidences == greedy_search(rounded).confidences == (1.0,)


@pytest.mark.usefixtures("engine")
def test_of_equal_tokens_the_lower_is_first() -> None:
    level = np.full((1, 40), -1.0, np.float32)
    assert [item.tokens for item in prefix_beam_search(level, 4)] == [(), (1,), (2,), (3,)]
    level[0, [30, 20]] = -0.5
    assert [item.tokens for item in prefix_beam_search(level, 4)] == [(20,), (30,), (), (1,)]
    assert greedy_search(level).tokens == (20,)


@pytest.mark.usefixtures("engine")
def test_before_any_frame_nothing_is_said_for_certain() -> None:
    search = PrefixBeamSearch()
    search.advance(np.zeros((0, 5), np.float32))
    assert search.hypotheses() == [Hypothesis((), 0.0, (), ())]
    assert search.hypotheses()[0].confidence == 0.0
    assert search.stable_prefix() == ()


# The compiled search against plain Python, bit for bit


@dataclass(frozen=True)
class Case:
    log_probs: FloatArray
    beam: int
    graph: ContextGraph | None
    chunks: list[FloatArray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    frames, seed = draw(st.integers(0, 60)), draw(st.integers(0, 2**32 - 1))
    tokens = draw(st.integers(2, 50) | st.sampled_from((63, 64, 65, 333)))
    log_probs = log_probs_of(draw(st.sampled_from(KINDS)), frames, tokens, seed)
    phrase = st.lists(st.integers(1, tokens - 1), min_size=1, max_size=4)
    phrases = draw(st.none() | st.lists(phrase, max_size=6))
    graph = None if phrases is None else ContextGraph(phrases, draw(st.sampled_from((0.0, 0.7, 3.0))))
    cuts = sorted(draw(st.lists(st.integers(0, frames), max_size=4)))
    return Case(log_probs, draw(st.integers(1, 12)), graph, np.split(log_probs, cuts))


@pytest.fixture(scope="module")
def functions() -> ctypes.CDLL:
    return search_functions_or_skip()


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_the_compiled_search_equals_plain_python(functions: ctypes.CDLL, case: Case) -> None:
    plain, compiled = PlainSearch(case.beam, case.graph), NativeSearch(case.beam, case.graph, functions)
    for chunk in case.chunks:
        plain.advance(chunk)
        compiled.advance(chunk)
        assert compiled.prefixes() == plain.prefixes()
        assert compiled.stable_prefix() == plain.stable_prefix()


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_chunks_give_what_the_whole_gives(case: Case) -> None:
    search = PrefixBeamSearch(case.beam, graph=case.graph)
    stable: list[Tokens] = [()]
    for chunk in case.chunks:
        search.advance(chunk)
        stable.append(search.stable_prefix())
        for tokens in (item.tokens for item in search.hypotheses()):
            assert all(tokens[: len(early)] == early for early in stable)
    assert search.hypotheses() == prefix_beam_search(case.log_probs, case.beam, graph=case.graph)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_every_token_has_a_frame_and_a_probability(case: Case) -> None:
    found = prefix_beam_search(case.log_probs, case.beam, graph=case.graph)
    assert 1 <= len(found) <= case.beam
    assert len({item.tokens for item in found}) == len(found)
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    for item in found:
        assert len(item.tokens) == len(item.frames) == len(item.confidences)
        assert all(a < b for a, b in itertools.pairwise((-1, *item.frames, len(case.log_probs))))
        assert all(0.0 <= confidence <= 1.0 for confidence in (*item.confidences, item.confidence))


def test_searches_in_several_threads_share_nothing(functions: ctypes.CDLL) -> None:
    inputs = [random_log_probs(60, 200, seed, 2.0) for seed in range(24)]
    alone = [prefix_beam_search(log_probs) for log_probs in inputs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(prefix_beam_search, inputs)) == alone


@pytest.mark.usefixtures("engine")
def test_what_all_live_prefixes_agree_on_is_known_early() -> None:
    search = PrefixBeamSearch(3)
    search.advance(random_log_probs(40, 6, 0, 3.0))
    agreed = search.stable_prefix()
    assert len(agreed) >= 5
    assert all(item.tokens[: len(agreed)] == agreed for item in search.hypotheses())
    following = {item.tokens[len(agreed) : len(agreed) + 1] for item in search.hypotheses()}
    assert len(following) > 1


# Hot words


@pytest.mark.usefixtures("engine")
def test_a_phrase_that_narrowly_loses_is_found_as_a_hot_word() -> None:
    log_probs = certain_log_probs([5, 0, 1, 2, 0, 5], 9, -12.0)
    log_probs[[2, 3], [3, 4]] = -1.0  # what was said, a little less likely
    assert prefix_beam_search(log_probs)[0].tokens == (5, 1, 2, 5)
    graph = ContextGraph([(3, 4)])
    best, *others = prefix_beam_search(log_probs, graph=graph)
    assert best.tokens == (5, 3, 4, 5)
    plain = {item.tokens: item.score for item in prefix_beam_search(log_probs)}
    assert best.score == pytest.approx(plain[best.tokens] + 2 * 3.0, abs=1e-4)  # others are pruned
    unhelped = next(item for item in others if item.tokens == (5, 1, 2, 5))
    assert unhelped.score == pytest.approx(plain[unhelped.tokens], abs=1e-4)


@pytest.mark.usefixtures("engine")
def test_a_phrase_that_breaks_off_or_is_cut_off_gains_nothing() -> None:
    graph = ContextGraph([(3, 4, 5)])
    for path in ([3, 4, 0, 1], [1, 3, 4]):
        log_probs = certain_log_probs(path, 9)
        found, plain = prefix_beam_search(log_probs, graph=graph), prefix_beam_search(log_probs)
        assert found[0].tokens == plain[0].tokens
        assert found[0].score == pytest.approx(plain[0].score, abs=1e-9)


@pytest.mark.usefixtures("engine")
def test_hot_words_leave_clear_speech_alone() -> None:
    rng = np.random.default_rng(3)
    graph = ContextGraph([rng.integers(1, 40, 3).tolist() for _ in range(100)])
    for _ in range(10):
        log_probs = certain_log_probs(rng.integers(0, 40, 50).tolist(), 40)
        best = prefix_beam_search(log_probs, graph=graph)[0]
        assert best.tokens == prefix_beam_search(log_probs)[0].tokens == greedy_search(log_probs).tokens
        assert best.frames == prefix_beam_search(log_probs)[0].frames


@settings(max_examples=200, deadline=None)
@given(
    phrases=st.sets(st.lists(st.integers(1, 3), min_size=1, max_size=5).map(tuple), max_size=8),
    tokens=st.lists(st.integers(1, 4), max_size=20).map(tuple),
    data=st.data(),
)
def test_the_bonus_is_that_of_the_phrases_there_and_of_the_one_begun(
    phrases: set[Tokens], tokens: Tokens, data: st.DataObject
) -> None:
    graph = ContextGraph(data.draw(st.permutations(sorted(phrases))), 2.0)
    bonus, state = 0.0, 0
    for token in tokens:
        added, state = graph.step(state, token)
        bonus += added
    assert bonus == 2.0 * (occurrences(tokens, phrases) + begun(tokens, phrases))
    assert graph.unfinished(state) == 2.0 * begun(tokens, phrases)


def test_a_phrase_that_is_there_twice_counts_once() -> None:
    once, twice = ContextGraph([(1, 2)]), ContextGraph([(1, 2), (1, 2)])
    assert [once.step(state, 2) for state in range(3)] == [twice.step(state, 2) for state in range(3)]


@pytest.mark.parametrize(
    ("phrases", "score", "message"),
    [
        ([(1,)] * (MAX_PHRASES + 1), 3.0, "too many"),
        ([(1,) * (MAX_PHRASE_TOKENS + 1)], 3.0, "65 tokens"),
        ([()], 3.0, "0 tokens"),
        ([(1, 0)], 3.0, "below 1"),
        ([(2**31,)], 3.0, "too large"),
        ([(1,)], -1.0, "negative"),
        ([(1,)], NAN, "finite"),
        ([(1,)], INFINITY, "finite"),
    ],
)
def test_hot_words_beyond_the_limits_are_refused(phrases: list[Tokens], score: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContextGraph(phrases, score)


@pytest.mark.usefixtures("engine")
def test_as_many_hot_words_as_are_allowed_are_taken() -> None:
    rng = np.random.default_rng(0)
    phrases = [rng.integers(1, 5000, MAX_PHRASE_TOKENS).tolist() for _ in range(MAX_PHRASES)]
    said = phrases[7]
    best = prefix_beam_search(certain_log_probs(said, 5000), graph=ContextGraph(phrases))[0]
    assert best.tokens == collapse(tuple(said))
    assert best.score == pytest.approx(3.0 * MAX_PHRASE_TOKENS)


# What is no probability


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("value", [NAN, -NAN, INFINITY])
@pytest.mark.parametrize("place", [(0, 0), (7, 99), (3, 5), (0, 12), (2, 50), (5, 96)])
def test_what_is_no_number_is_refused_and_changes_nothing(value: float, place: tuple[int, int]) -> None:
    good = random_log_probs(8, 100, 0, 2.0)
    bad = good.copy()
    bad[place] = value
    search = PrefixBeamSearch()
    search.advance(good)
    before = search.hypotheses()
    with pytest.raises(ValueError, match="NaN or infinity"):
        search.advance(bad)
    assert search.hypotheses() == before
    search.advance(good)
    assert search.hypotheses() == prefix_beam_search(np.concatenate((good, good)))
    with pytest.raises(ValueError, match="NaN"):
        greedy_search(bad)


@pytest.mark.usefixtures("engine")
def test_nothing_possible_is_no_error() -> None:
    found = prefix_beam_search(np.full((5, 6), -np.inf, np.float32))
    assert {item.score for item in found} == {-math.inf}
    assert all(len(item.tokens) == len(item.frames) for item in found)
    assert {item.confidence for item in found} == {0.0}


@pytest.mark.usefixtures("engine")
def test_wrong_shapes_and_beams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((5,), (1, 5, 6), (5, 0)):
        with pytest.raises(ValueError, match="shape"):
            PrefixBeamSearch().advance(np.zeros(shape, np.float32))
        with pytest.raises(ValueError, match="frames, tokens"):
            greedy_search(np.zeros(shape, np.float32))
    for beam in (0, -1, MAX_BEAM + 1):
        with pytest.raises(ValueError, match="beam"):
            PrefixBeamSearch(beam)
    monkeypatch.setattr(ctc_search, "MAX_FRAMES", 10)
    search = PrefixBeamSearch()
    search.advance(np.zeros((8, 5), np.float32))
    with pytest.raises(ValueError, match="more than 10 frames"):
        search.advance(np.zeros((3, 5), np.float32))
    search.advance(np.zeros((2, 5), np.float32))


@pytest.mark.usefixtures("engine")
def test_arrays_of_any_layout_are_taken() -> None:
    log_probs = random_log_probs(20, 8, 1, 2.0)
    for same in (np.asfortranarray(log_probs), np.repeat(log_probs, 2, axis=0)[::2]):
        assert not same.flags.c_contiguous
        assert prefix_beam_search(same) == prefix_beam_search(log_probs)


# Greedy


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_the_best_token_of_each_frame(seed: int) -> None:
    log_probs = random_log_probs(40, 6, seed, 1.0)
    found = greedy_search(log_probs)
    path = tuple(log_probs.argmax(axis=1).tolist())
    assert found.tokens == collapse(path)
    assert found.score == pytest.approx(log_probs.max(axis=1).sum(), rel=1e-5)
    assert tuple(path[frame] for frame in found.frames) == found.tokens
    assert all(a < b for a, b in itertools.pairwise(found.frames))


def test_greedy_takes_nothing() -> None:
    assert greedy_search(np.zeros((0, 5), np.float32)) == Hypothesis((), 0.0, (), ())
