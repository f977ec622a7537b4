"""eSpeak NG in its worker process: its speech, and that a crash, a hang or a stop costs one sentence at most."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers.espeak import _PHONEMES_OF_CHARACTERS, Espeak, Spoken, _decode, split_runs
from mirrorchat.embedded.workers.process import WorkerFailed, WorkerProcesses
from mirrorchat.engines import Language
from mirrorchat.errors import ClientGone, DeadlineExceeded, SynthesisFailed
from mirrorchat.text.normalization.normalize import normalize_text

WAIT_S = 30.0
ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE


@pytest.fixture
def espeak() -> Iterator[Espeak]:
    engine = Espeak()
    yield engine
    engine.close()


def speak(espeak: Espeak, text: str, language: Language) -> Spoken:
    return espeak.speak(text, language, "klatt4", context=Context.after(WAIT_S))


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def forks_of(pid: int) -> list[int]:
    try:
        return [int(fork) for fork in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def unchanged(text: str, voice: str) -> str:
    """Return the phonemes that eSpeak NG gives `text` by itself."""
    workers = WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")
    try:
        answer = workers.request(f"{voice}\0{text}".encode(), limit_s=WAIT_S, context=Context())
        return _decode(answer).phonemes
    finally:
        workers.close()


def test_english_is_spoken_as_finite_unclipped_sound(espeak: Espeak) -> None:
    spoken = speak(espeak, "Hello, how are you?", ENGLISH)
    assert spoken.phonemes.startswith("h@l'oU")
    assert spoken.audio.sample_rate == 22_050
    assert spoken.audio.samples.dtype == np.float32
    assert 0.8 < spoken.audio.duration_s < 3.0
    assert 0.1 < np.abs(spoken.audio.samples).max() < 0.99


@pytest.mark.parametrize(("phonemes", "characters"), _PHONEMES_OF_CHARACTERS.items())
def test_syllables_without_a_rule_are_spoken_in_mandarin(espeak: Espeak, phonemes: str, characters: str) -> None:
    spelled = unchanged("，".join(characters), "cmn+klatt4")
    assert spelled.count("(en)") == len(characters), "eSpeak NG has learnt them: the table can shrink"
    spoken = speak(espeak, "，".join(characters), CHINESE)
    assert "(en)" not in spoken.phonemes
    assert spoken.phonemes.count(phonemes) == len(characters)


def test_brother_and_hero_and_poor_in_a_sentence(espeak: Espeak) -> None:
    phonemes = speak(espeak, "英雄的兄弟很穷。", CHINESE).phonemes
    assert "(en)" not in phonemes
    assert [phonemes.count(syllable) for syllable in ("S;j'ong35", "S;j'ong55", "tS;hj'ong35")] == [1, 1, 1]


def test_no_common_character_is_spelled_in_english(espeak: Espeak) -> None:
    rows = [bytes([high, low]) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF)]
    common = "".join(row.decode("gb2312", errors="ignore") for row in rows)
    assert len(common) == 3755  # level 1 of GB 2312: the characters of everyday text
    for start in range(0, len(common), 200):
        assert "(en)" not in speak(espeak, common[start : start + 200], CHINESE).phonemes


OF_MANY_SCRIPTS = (
    "สวัสดี", "नमस्ते", "привет", "λόγος", "مرحبا", "שלום", "こんにちは", "カタカナ", "안녕하세요", "բարև", "გამარჯობა",
    "নমস্কার", "வணக்கம்", "నమస్తే", "ನಮಸ್ಕಾರ", "നമസ്കാരം", "ආයුබෝවන්", "નમસ્તે", "ਸਤ", "မင်္ဂလာပါ", "សួស្តី", "ສະບາຍດີ", "ሰላም",
    "བཀྲ", "đường", "Łódź", "ˈlɪtəl", "ᠮᠣᠩ", "ꆈꌠ", "ᚠᚢ", "ⵜⵉⴼ", "𐌲𐌿", "⠓⠑", "ḥạ", "𠀀",
)  # fmt: skip


@pytest.mark.parametrize("word", OF_MANY_SCRIPTS)
def test_no_script_is_spelled_by_code_or_letter(espeak: Espeak, word: str) -> None:
    english = speak(espeak, normalize_text(f"The word {word} means hello.", ENGLISH), ENGLISH)
    chinese = speak(espeak, normalize_text(f"这个词{word}是你好的意思。", CHINESE), CHINESE)
    assert "l,Et#3" not in english.phonemes  # "letter"
    assert "_:(en)" not in chinese.phonemes
    assert max(english.audio.duration_s, chinese.audio.duration_s) < 3.5


def test_english_words_in_chinese_are_spoken_by_the_english_voice(espeak: Espeak) -> None:
    spoken = speak(espeak, "我喜欢 Python 编程。", CHINESE)
    assert "p'aIT@n" in spoken.phonemes  # the Mandarin voice says (en)paI11T@11n: every syllable with a tone
    assert "(en)" not in spoken.phonemes
    assert "(en)" in unchanged("我喜欢 Python 编程。", "cmn+klatt4")
    alone = [speak(espeak, part, CHINESE).audio.duration_s for part in ("我喜欢", "Python", "编程。")]
    assert spoken.audio.duration_s < sum(alone) + 0.1, "a pause inside the phrase"


def test_runs_keep_every_letter_and_know_their_pauses() -> None:
    runs = split_runs("打开 iPhone，然后看 A 四纸。OK?", CHINESE)
    assert [(run.text, run.language, run.pause_s) for run in runs] == [
        ("打开", CHINESE, 0.0),
        ("iPhone，", ENGLISH, 0.17),
        ("然后看", CHINESE, 0.0),
        ("A", ENGLISH, 0.0),
        ("四纸。", CHINESE, 0.34),
        ("OK?", ENGLISH, 0.34),
    ]
    assert split_runs("……?!", ENGLISH) == []


@pytest.mark.parametrize(
    ("text", "read_as"),
    [("[[h@l'oU]] one", "_at_"), ("\x01 20S one", "tw'Ent2i z w,Vn"), ("a \x01 0A one", "z'i@roU 'eI w,Vn")],
)
def test_commands_in_the_text_are_not_obeyed(espeak: Espeak, text: str, read_as: str) -> None:
    spoken = speak(espeak, text, ENGLISH)
    assert read_as in spoken.phonemes
    assert np.abs(spoken.audio.samples).max() > 0.1


@pytest.mark.parametrize(("text", "language"), [("Hello.", ENGLISH), ("你好！”", CHINESE), ("我用 Python。", CHINESE)])
def test_a_sentence_ends_in_a_pause(espeak: Espeak, text: str, language: Language) -> None:
    samples = speak(espeak, text, language).audio.samples
    assert np.abs(samples[-int(0.33 * 22_050) :]).max() == 0.0
    assert np.abs(samples[-int(0.5 * 22_050) :]).max() > 0.01


def test_runs_end_at_their_last_mark() -> None:
    assert [run.text for run in split_runs("他说：“好的。”", CHINESE)] == ["他说：“好的。"]
    assert [run.text for run in split_runs("Really?!", ENGLISH)] == ["Really?"]


def test_nothing_to_say_is_empty(espeak: Espeak) -> None:
    assert len(speak(espeak, "… — !", ENGLISH).audio.samples) == 0


def test_one_sentence_never_changes_the_next(espeak: Espeak) -> None:
    first = speak(espeak, "Six thick thistles.", ENGLISH).audio.samples
    speak(espeak, "春天来了，花都开了。", CHINESE)
    speak(espeak, "Another sentence, rather a long one.", ENGLISH)
    assert np.array_equal(first, speak(espeak, "Six thick thistles.", ENGLISH).audio.samples)
    other = Espeak()
    try:
        assert np.array_equal(first, speak(other, "Six thick thistles.", ENGLISH).audio.samples)
    finally:
        other.close()


def test_threads_get_each_their_own_sentence(espeak: Espeak) -> None:
    texts = [(f"This is sentence number {word}.", ENGLISH) for word in ("one", "two", "three")]
    texts += [("你好。", CHINESE), ("我们去爬山。", CHINESE)]
    alone = [speak(espeak, *text).audio.samples for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: speak(espeak, *text).audio.samples, texts * 6))
    assert all(np.array_equal(samples, alone[i % len(texts)]) for i, samples in enumerate(together))
    assert len(espeak.pids()) == 1


def kill_fork(espeak: Espeak) -> int:
    """Kill what speaks now, as soon as it does; return the process id of its worker."""
    wait_until(lambda: any(forks_of(pid) for pid in espeak.pids()))
    (pid,) = espeak.pids()
    os.kill(forks_of(pid)[0], signal.SIGSEGV)
    wait_until(lambda: not is_running(pid))
    return pid


def test_a_sentence_whose_process_dies_is_tried_once_more(espeak: Espeak) -> None:
    text = "word " * 1600
    whole = speak(espeak, text, ENGLISH).audio.samples
    wait_until(lambda: not forks_of(espeak.pids()[0]))  # that of the last sentence
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(speak, espeak, text, ENGLISH)
        pid = kill_fork(espeak)
        assert np.array_equal(again.result().audio.samples, whole)
    assert espeak.pids() != [pid]


def test_a_sentence_that_crashes_twice_fails_alone(espeak: Espeak) -> None:
    espeak.warm_up()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(speak, espeak, "word " * 1600, ENGLISH)
        assert kill_fork(espeak) != kill_fork(espeak)
        with pytest.raises(SynthesisFailed, match="eSpeak NG: it ended"):
            long.result()
    assert len(speak(espeak, "Hello.", ENGLISH).audio.samples) > 0


def test_a_sentence_that_close_ends_starts_no_process(espeak: Espeak) -> None:
    espeak.warm_up()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(speak, espeak, "word " * 1600, ENGLISH)
        wait_until(lambda: forks_of(espeak.pids()[0]))
        espeak.close()
        with pytest.raises(SynthesisFailed, match="eSpeak NG: it ended"):
            long.result()
    assert espeak.pids() == []


def test_a_worker_that_was_killed_while_idle_costs_nothing(espeak: Espeak) -> None:
    espeak.warm_up()
    pid = espeak.pids()[0]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    assert len(speak(espeak, "Hello.", ENGLISH).audio.samples) > 0


def test_a_hang_ends_at_the_deadline(espeak: Espeak) -> None:
    espeak.warm_up()
    pid = espeak.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded):
        espeak.speak("Hello.", ENGLISH, "klatt4", context=Context.after(0.2))
    assert not Path(f"/proc/{pid}").exists(), "neither running nor a zombie"
    assert len(speak(espeak, "Hello.", ENGLISH).audio.samples) > 0


def test_a_hang_ends_at_the_limit_of_the_request() -> None:
    workers = WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")
    try:
        workers.warm_up()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(workers.request, b"en-us\0" + b"word " * 2000, limit_s=1.0, context=Context())
            for _ in range(2):
                wait_until(lambda: any(forks_of(pid) for pid in workers.pids()))
                (pid,) = workers.pids()
                os.kill(forks_of(pid)[0], signal.SIGSTOP)
                wait_until(lambda: pid not in workers.pids())  # noqa: B023 - it is called here
            with pytest.raises(WorkerFailed, match=r"no answer within 1 s"):
                call.result()
        assert workers.request(b"en-us\0hello", limit_s=WAIT_S, context=Context())
    finally:
        workers.close()


def test_a_process_that_was_stopped_costs_its_limit_only() -> None:
    workers = WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")
    try:
        workers.warm_up()
        (pid,) = workers.pids()
        os.kill(pid, signal.SIGSTOP)
        assert workers.request(b"en-us\0hello", limit_s=1.5, context=Context())
        assert not is_running(pid) and len(workers.pids()) == 1
    finally:
        workers.close()


def test_a_cancellation_ends_a_call_and_the_wait_for_a_worker(espeak: Espeak) -> None:
    espeak.warm_up()
    os.kill(espeak.pids()[0], signal.SIGSTOP)
    contexts = [Context(), Context()]

    def call(context: Context) -> Spoken:
        return espeak.speak("Hello.", ENGLISH, "klatt4", context=context)

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(call, context) for context in contexts]
        for context in contexts:
            context.cancel(ClientGone("the caller hung up"))
        for result in calls:
            with pytest.raises(ClientGone):
                result.result(timeout=WAIT_S)
    assert len(speak(espeak, "Hello.", ENGLISH).audio.samples) > 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_to_the_whole_service_leave_the_worker_at_work(espeak: Espeak, name: str) -> None:
    espeak.warm_up()
    pid = espeak.pids()[0]
    os.kill(pid, getattr(signal, name))
    assert len(speak(espeak, "Hello.", ENGLISH).audio.samples) > 0
    assert espeak.pids() == [pid]


def test_a_worker_outlives_the_thread_that_started_it(espeak: Espeak) -> None:
    starter = threading.Thread(target=espeak.warm_up)
    starter.start()
    starter.join()
    pid = espeak.pids()[0]
    assert len(speak(espeak, "Hello.", ENGLISH).audio.samples) > 0
    assert espeak.pids() == [pid]


def test_a_worker_dies_with_the_server() -> None:
    program = (
        "import time; from mirrorchat.embedded.workers.espeak import Espeak; e = Espeak(); e.warm_up();"
        "print(e.pids()[0], flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert is_running(pid)
        worker.kill()
        wait_until(lambda: not is_running(pid))


def test_close_leaves_no_process(espeak: Espeak) -> None:
    espeak.warm_up()
    pid = espeak.pids()[0]
    espeak.close()
    assert not Path(f"/proc/{pid}").exists()
    assert espeak.pids() == []


def test_a_worker_that_prints_something_else_is_refused() -> None:
    workers = WorkerProcesses("this")  # the Zen of Python, on standard output
    try:
        with pytest.raises(WorkerFailed, match="malformed"):
            workers.warm_up()
    finally:
        workers.close()


def test_a_worker_that_cannot_load_says_so() -> None:
    workers = WorkerProcesses("mirrorchat.no_such_module")
    with pytest.raises(WorkerFailed, match="it ended"):
        workers.warm_up()
    assert workers.pids() == []


@pytest.mark.parametrize("answer", [b"", b"abc", b"\0\0\x56\x22\0\0\0\xff", b"\0\0\x56\x22\0\0\0\0odd", b"\xff" * 12])
def test_malformed_answers_are_refused(answer: bytes) -> None:
    with pytest.raises(WorkerFailed, match="malformed"):
        _decode(answer)


def test_text_sizes_are_bounded(espeak: Espeak) -> None:
    with pytest.raises(SynthesisFailed, match="too long"):
        speak(espeak, "word " * 4000, ENGLISH)
