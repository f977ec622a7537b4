"""Measures turns: a real server under gunicorn, a chat API that streams at a fixed rate, players in real time.

    .venv/bin/python benchmarks/turn.py [--json] [--engines embedded small xtts] [--callers 1 2 4 8] [--turns 5]
        [--threads 2] [--weights int8] [--tokens-s 40] [--checkpoint FOLDER] [--models FOLDER]

In each round all callers ask at the same time, after all answers of the previous round are complete. XTTS has random
weights of real size: the time does not depend on their values, and turn_wsgi.py gives its sentences the length of
speech. A second route of the same server answers in the order of the original design (recognize, whole answer, every
sentence, one wav); its turns alternate with the streamed ones. The small models are also compared with the floor, in
turns that alternate between two servers, in both languages. benchmarks/README.md describes each figure.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from support.chat_server import ChatServer  # noqa: E402

from benchmarks.turn_chat import FIRST_TOKEN_S, PacedAnswer  # noqa: E402
from benchmarks.turn_floor import Side, callers_of, compare_hearing, compare_with_floor, spoken_questions  # noqa: E402
from benchmarks.turn_player import Caller, Heard, percentiles  # noqa: E402
from benchmarks.turn_server import MeasuredServer, measured_server  # noqa: E402
from mirrorchat.engines import Language  # noqa: E402
from mirrorchat.settings import Settings  # noqa: E402
from mirrorchat.startup.engine_choice import Lack, missing_kokoro, missing_whisper  # noqa: E402

Figures = dict[str, Any]
ENGINES = ("embedded", "small", "xtts")
QUESTION = ROOT / "examples" / "question.wav"


@dataclass(frozen=True)
class Bench:
    """A running server, with its chat API and its caller."""

    server: MeasuredServer
    chat: PacedAnswer
    caller: Caller
    turns: int

    def heard(self, turn: Heard) -> Heard:
        """Return `turn` if it was answered. Otherwise end the benchmark: a single caller must not be refused."""
        if not turn.answered:
            sys.exit(f"benchmarks/turn.py: one caller was not answered ({turn.status}):\n{self.server.log}")
        return turn

    def answered(self, caller: Caller) -> Heard:
        """Return a streamed turn of `caller`, after which the server is free again."""
        turn = self.heard(caller.listen())
        self.server.stages()
        return turn

    def streamed_turn(self) -> tuple[Heard, float]:
        """Return the turn of one caller, and the overhead of the server in seconds (see `overhead_s`)."""
        self.server.stages()
        self.chat.first_sentence_s.clear()
        turn = self.heard(self.caller.listen())
        return turn, overhead_s(turn, self.server.stages(), self.chat.first_sentence_s[0])

    def original_turn(self) -> Heard:
        return self.heard(self.caller.wait_for_whole("/original"))


def overhead_s(turn: Heard, stages: dict[str, float], chat_s: float) -> float:
    """Return the time to first audio without the necessary stages.

    These are the recognizer and then the chat API (or the voice, if it takes longer than both), and the first chunk of
    the first sentence. `chat_s` is the time of the API without the connection to it.
    """
    before = max(stages["recognize"] + chat_s, stages["voice"])
    return turn.first_s - before - stages["first_chunk"]


def compare_orders(bench: Bench) -> Figures:
    """Compare both orders in alternating turns of one caller, after a warm-up of each."""
    bench.streamed_turn()
    bench.original_turn()
    ours, own_s, theirs = [], [], []
    for _ in range(bench.turns):
        turn, overhead = bench.streamed_turn()
        ours.append(turn.first_s)
        own_s.append(overhead)
        theirs.append(bench.original_turn().first_s)
    figures: Figures = {
        "ttfa_vs_original": round(min(theirs) / min(ours), 2),
        "ttfa_vs_original_median": round(float(np.median(theirs) / np.median(ours)), 2),
        "ttfa_original_ms": percentiles(theirs, 1000),
        "overhead_ms": percentiles(own_s, 1000),
    }
    print(
        f"  first audio after {min(ours):.2f} s, in the original's order {min(theirs):.2f} s: "
        f"{figures['ttfa_vs_original']:.1f} times sooner; overhead {figures['overhead_ms']['p50']:.1f} ms",
        flush=True,
    )
    return figures


def ask_at_once(bench: Bench, callers: int) -> Figures:
    """Let `callers` ask at the same time, and again when all are answered."""
    bench.server.stages()
    turns: list[Heard] = []
    before_s = bench.server.cpu_s()
    with ThreadPoolExecutor(callers) as pool:
        for _ in range(bench.turns):
            turns += pool.map(lambda _: bench.caller.listen(), range(callers))
            bench.server.stages()  # waits until every slot is free
    cpu_s = bench.server.cpu_s() - before_s
    answered = [turn for turn in turns if turn.answered]
    figures: Figures = {
        "ttfa_ms": percentiles([turn.first_s for turn in answered], 1000),
        "underruns": percentiles([len(turn.gaps_s) for turn in answered]),
        "gap_ms": percentiles([sum(turn.gaps_s) for turn in answered], 1000),
        "worst_gap_ms": round(1000 * max((max(turn.gaps_s, default=0.0) for turn in answered), default=0.0), 1),
        "underruns_in_all": sum(len(turn.gaps_s) for turn in answered),
        "answered": len(answered),
        "refused": sum(turn.refused for turn in turns),
        "failed": sum(not turn.answered and not turn.refused for turn in turns),
        "speech_s": percentiles([turn.speech_s for turn in answered]),
        "whole_s": percentiles([turn.whole_s for turn in answered]),
        "cpu_s_per_turn": round(cpu_s / max(1, len(answered)), 2),
    }
    print(f"  {callers} callers: " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return figures


def measure(name: str, options: argparse.Namespace) -> Figures:
    """Return all figures for one choice of engines."""
    print(f"{name}:", flush=True)
    with running_bench(name, options) as bench:
        figures = compare_orders(bench)
        by_callers = {str(callers): ask_at_once(bench, callers) for callers in options.callers}
        figures |= {
            field: {n: each[field] for n, each in by_callers.items()} for field in next(iter(by_callers.values()))
        }
        rss_mb, children_mb = bench.server.peak_mb()
    print(f"  memory: {rss_mb:.0f} MB, its worker processes {children_mb:.0f} MB", flush=True)
    overhead_ms = figures["overhead_ms"]["p50"]
    return figures | {"overhead_ms_p50": overhead_ms, "rss_mb": round(rss_mb), "children_rss_mb": round(children_mb)}


@contextmanager
def running_bench(name: str, options: argparse.Namespace) -> Iterator[Bench]:
    chat = PacedAnswer(options.tokens_s)
    with tempfile.TemporaryDirectory() as folder, ChatServer(chat) as api:
        models = Path(folder) / "weights"
        models.mkdir()
        settings: dict[str, Any] = {"models_dir": str(models), "threads": options.threads}
        if name == "small":
            settings["models_dir"] = str(options.models)
        if name == "xtts":
            put_weights(models / "xtts-v2", options.checkpoint)
            settings |= {"xtts_weights": options.weights, "device": "cpu"}
        recognizer = "small" if name == "small" else "embedded"
        engines = {"recognizer": recognizer, "synthesizer": name, "chatgpt_apis": [api.api()]}
        with measured_server(Path(folder), **settings, **engines) as server:
            yield Bench(server, chat, Caller(server.port, QUESTION.read_bytes()), options.turns)


def measure_against_floor(options: argparse.Namespace) -> Figures:
    """Return the figures of the small models over those of the floor. Both servers run at the same time."""
    print("small against the floor:", flush=True)
    questions = spoken_questions(options.models, options.threads, options.question)
    with ExitStack() as stack:
        benches = {
            side: stack.enter_context(running_bench(name, options))
            for side, name in (("floor", "embedded"), ("small", "small"))
        }
        sides = {
            side: Side(callers_of(side, bench.server.port, questions), bench.answered)
            for side, bench in benches.items()
        }
        figures = compare_with_floor(sides, options.turns)
    question = questions[Language.ENGLISH]
    return figures | compare_hearing(question, options.models, options.threads, options.turns)


def put_weights(folder: Path, checkpoint: Path | None) -> None:
    """Link `checkpoint` to `folder`, or make weights of real size there, in a process that frees their memory."""
    if checkpoint is not None:
        folder.symlink_to(checkpoint.resolve())
        return
    script = ROOT / "scripts" / "make_tiny_xtts.py"
    command = [sys.executable, str(script), str(folder), "--size", "real"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def gathered(engines: dict[str, Figures]) -> Figures:
    """Return all figures. The ones with targets come first (see benchmarks/README.md)."""
    shown = engines.get("xtts") or next(iter(engines.values()))
    overhead = (engines.get("embedded") or shown)["overhead_ms_p50"]
    fields = ("ttfa_vs_original", "ttfa_ms", "underruns", "rss_mb")
    return {**{field: shown[field] for field in fields}, "overhead_ms_p50": overhead, "engines": engines}


def surroundings(engines: Sequence[str]) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    names = ["flask", "gunicorn", "numpy", "pocketsphinx"] + ["torch", "coqui-tts"] * ("xtts" in engines)
    names += ["ctranslate2", "onnxruntime", "hibari-tts"] * ("small" in engines)
    packages = {name: version(name) for name in names}
    cpu = models[0] if models else platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), **packages}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one line that holds everything as JSON")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--callers", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--turns", type=int, default=5, help="of each caller; also how often the orders are compared")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", default="int8", help="XTTS's weight mode")
    parser.add_argument("--tokens-s", type=float, default=40.0, help="the chat API's tokens a second")
    parser.add_argument("--checkpoint", type=Path, help="a converted XTTS checkpoint instead of random weights")
    parser.add_argument("--models", type=Path, default=Settings().models_dir, help="the folder of the small models")
    parser.add_argument("--question", type=Path, help="a person's English question for the comparison with the floor")
    options = parser.parse_args()
    if "small" in options.engines and (lacks := missing_small(options.models)):
        parser.error(str(lacks))
    return options


def missing_small(models: Path) -> Lack | None:
    """Return what the small models lack in the folder `models`; None if nothing."""
    return missing_whisper(models / "whisper-base") or missing_kokoro(models / "kokoro")


def main() -> None:
    options = parse_options()
    print(surroundings(options.engines), flush=True)
    figures = gathered({name: measure(name, options) for name in options.engines})
    if "small" in options.engines:
        figures["small_vs_floor"] = measure_against_floor(options)
    if options.json:
        chosen = {name: getattr(options, name) for name in ("callers", "turns", "threads", "weights", "tokens_s")}
        settings = {**chosen, "first_token_s": FIRST_TOKEN_S}
        print(json.dumps({**figures, "settings": settings, "surroundings": surroundings(options.engines)}))


if __name__ == "__main__":
    main()
