"""The voice tint, on eSpeak NG's speakers and on people: whose voice it moves toward, and that it is nobody else's."""

import csv
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from support.places import CLIPS

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.voice_tint import PROFILE_SIZE, SAMPLE_RATE_HZ, Profile, TintVoice, VoiceTint
from mirrorchat.embedded.workers.espeak import _decode
from mirrorchat.embedded.workers.process import WorkerProcesses
from mirrorchat.engines import VoiceKind

Say = Callable[[str, str], Audio]
ProfileOf = Callable[[str, str], Profile]

PASSAGE = "The north wind and the sun were disputing which was stronger, when a man came along in a warm cloak."
CHINESE_PASSAGE = "早上我和朋友去公园散步，看见湖边有许多红色的花，女儿问为什么会下雨。"
SENTENCE = "Please open the window before you go to bed."
CHINESE_SENTENCE = "春天来了，公园里开满了红色和黄色的花。"


@pytest.fixture(scope="module")
def say() -> Iterator[Say]:
    """Speech by any of eSpeak NG's speakers: `say("en-us+f2", text)`."""
    workers = WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")

    def speak(voice: str, text: str) -> Audio:
        request = f"{voice}\0{text}".encode()
        return _decode(workers.request(request, limit_s=60.0, context=Context())).audio

    yield speak
    workers.close()


@pytest.fixture(scope="module")
def tint() -> VoiceTint:
    return VoiceTint()


@pytest.fixture(scope="module")
def profile_of(tint: VoiceTint, say: Say) -> ProfileOf:
    """The profile of one of eSpeak NG's speakers on a text, measured once."""
    return functools.cache(lambda voice, text: measure(tint, say(voice, text)))


def measure(tint: VoiceTint, speech: Audio) -> Profile:
    profile = tint.profile(speech)
    assert profile is not None
    return profile


def cepstral_distance(one: Profile, other: Profile) -> float:
    """Return the distance in dB of two voices' mean mel-cepstra, loudness left out."""
    return float(4.343 * np.sqrt(2.0 * ((one.voiced.mean - other.voiced.mean)[1:] ** 2).sum()))


def check_moved(tint: VoiceTint, neutral: Audio, source: Profile, target: Profile) -> Profile:
    """Assert that `neutral`, tinted, is far nearer to `target` than it was, in pitch and in colour."""
    tinted = tint.apply(neutral, source, target)
    assert tinted.sample_rate == SAMPLE_RATE_HZ
    assert abs(tinted.duration_s - neutral.duration_s) < 0.005
    assert np.isfinite(tinted.samples).all()
    before, after = measure(tint, neutral), measure(tint, tinted)
    # A sentence has its own melody: the pitch moves by the distance of the two voices.
    expected = before.f0_mean + target.f0_mean - source.f0_mean
    assert abs(after.f0_mean - expected) < 0.12
    assert cepstral_distance(after, target) < 0.6 * cepstral_distance(before, target)
    return after


@pytest.mark.parametrize("voice", ["en-us+f2", "en-us+f5", "en-us+m3"])
@pytest.mark.parametrize(("language", "text"), [("en-us", SENTENCE), ("cmn", CHINESE_SENTENCE)])
def test_it_moves_toward_the_reference(
    tint: VoiceTint, say: Say, profile_of: ProfileOf, voice: str, language: str, text: str
) -> None:
    source = profile_of(f"{language}+klatt4", PASSAGE if language == "en-us" else CHINESE_PASSAGE)
    target = profile_of(voice, PASSAGE)
    check_moved(tint, say(f"{language}+klatt4", text), source, target)


def test_a_man_becomes_a_woman_and_back(tint: VoiceTint, say: Say, profile_of: ProfileOf) -> None:
    man, woman = (profile_of(voice, PASSAGE) for voice in ("en-us+klatt4", "en-us+f2"))
    assert woman.f0_mean - man.f0_mean > 0.4  # they are far apart: half an octave and more
    as_woman = check_moved(tint, say("en-us+klatt4", SENTENCE), man, woman)
    as_man = check_moved(tint, say("en-us+f2", SENTENCE), woman, man)
    assert as_woman.f0_mean - as_man.f0_mean > 0.4


@pytest.mark.skipif(not CLIPS.is_dir(), reason="clips absent")
def test_each_person_is_nearest_to_its_own_tint(tint: VoiceTint, say: Say, profile_of: ProfileOf) -> None:
    people = []
    for row in csv.DictReader((CLIPS / "manifest.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t"):
        if 2.5 <= float(row["seconds"]) <= 6.0:
            samples, rate_hz = soundfile.read(CLIPS / row["file"], dtype="float32", always_2d=True)
            profile = tint.profile(Audio(samples.mean(axis=1), rate_hz))
            assert profile is not None
            people.append(profile)
    assert len(people) >= 5
    neutral = say("en-us+klatt4", SENTENCE)
    source = profile_of("en-us+klatt4", PASSAGE)
    before = [cepstral_distance(measure(tint, neutral), person) for person in people]
    right = 0
    for index, person in enumerate(people):
        tinted = measure(tint, tint.apply(neutral, source, person))
        distances = [cepstral_distance(tinted, other) for other in people]
        assert distances[index] < 0.7 * before[index]
        right += int(np.argmin(distances)) == index
    assert right >= 0.8 * len(people)


def test_more_strength_comes_nearer(tint: VoiceTint, say: Say, profile_of: ProfileOf) -> None:
    source, target = profile_of("en-us+klatt4", PASSAGE), profile_of("en-us+f2", PASSAGE)
    neutral = say("en-us+klatt4", SENTENCE)
    none, some, full = (
        cepstral_distance(measure(tint, tint.apply(neutral, source, target, strength=strength)), target)
        for strength in (0.0, 0.5, 1.0)
    )
    assert full < 0.8 * some < 0.7 * none


def test_two_references_differ_and_neither_depends_on_the_other(
    tint: VoiceTint, say: Say, profile_of: ProfileOf
) -> None:
    source = profile_of("en-us+klatt4", PASSAGE)
    one, two = (profile_of(voice, PASSAGE) for voice in ("en-us+f2", "en-us+m3"))
    neutral = say("en-us+klatt4", SENTENCE)
    first = [tint.apply(neutral, source, voice).samples for voice in (one, two)]
    second = [tint.apply(neutral, source, voice).samples for voice in (two, one)]
    assert np.array_equal(first[0], second[1])
    assert np.array_equal(first[1], second[0])
    assert np.abs(first[0] - first[1]).max() > 0.05


def test_threads_do_not_disturb_each_other(tint: VoiceTint, say: Say, profile_of: ProfileOf) -> None:
    source = profile_of("en-us+klatt4", PASSAGE)
    target = profile_of("en-us+f5", PASSAGE)
    sentences = [say("en-us+klatt4", text) for text in ("Hello there.", "Go home.", "What time is it?")]
    alone = [tint.apply(sentence, source, target).samples for sentence in sentences]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda sentence: tint.apply(sentence, source, target).samples, sentences * 2))
    assert all(np.array_equal(samples, alone[i % 3]) for i, samples in enumerate(together))


def test_the_reference_is_measured_alike_at_any_rate_and_loudness(
    tint: VoiceTint, say: Say, profile_of: ProfileOf
) -> None:
    speech = say("en-us+f2", PASSAGE)
    usual = measure(tint, speech)
    quiet = measure(tint, Audio(speech.samples * 0.05, speech.sample_rate))
    phone = measure(tint, speech.resample(48_000))
    for profile in (quiet, phone):
        assert abs(profile.f0_mean - usual.f0_mean) < 0.02
        assert cepstral_distance(profile, usual) < 1.0


def test_a_profile_survives_storage_and_is_small(tint: VoiceTint, say: Say, profile_of: ProfileOf) -> None:
    short, long = (measure(tint, say("en-us+f2", text)) for text in (SENTENCE, " ".join([PASSAGE] * 2)))
    assert len(short.to_bytes()) == len(long.to_bytes()) == 8 * PROFILE_SIZE < 20_000
    voice = TintVoice(VoiceKind.TINT, "pitch and timbre moved toward the speaker", long)
    stored = TintVoice.from_bytes(voice.to_bytes())
    assert stored == voice
    assert stored != TintVoice(VoiceKind.TINT, "pitch and timbre moved toward the speaker", short)
    assert stored.profile is not None
    source = profile_of("en-us+klatt4", PASSAGE)
    neutral = say("en-us+klatt4", SENTENCE)
    again = tint.apply(neutral, source, stored.profile)
    assert np.array_equal(tint.apply(neutral, source, long).samples, again.samples)
    with pytest.raises(ValueError, match="read-only"):
        stored.profile.aperiodicity[0] = 0.0


def test_a_neutral_voice_survives_storage() -> None:
    voice = TintVoice(VoiceKind.NEUTRAL, "0.4 s of speech, 1 s is needed")
    assert TintVoice.from_bytes(voice.to_bytes()) == voice


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b'{"kind": "tint", "reason": "x"}\nshort',
        b'{"kind": "parrot", "reason": "x"}\n',
        b'{"kind": "tint", "reason": "x"}\n' + b"\0" * 8 * PROFILE_SIZE,
        b'{"kind": "tint", "reason": "x"}\n' + b"\xff" * 8 * PROFILE_SIZE,
    ],
)
def test_other_bytes_are_no_voice(data: bytes) -> None:
    with pytest.raises(ValueError, match="voice"):
        TintVoice.from_bytes(data)


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.03, 0.06, 0.5])
def test_short_and_silent_sound_is_let_through(
    tint: VoiceTint, say: Say, profile_of: ProfileOf, seconds: float
) -> None:
    source, target = (profile_of(voice, PASSAGE) for voice in ("en-us+klatt4", "en-us+f2"))
    tinted = tint.apply(Audio(np.zeros(int(seconds * 22_050), np.float32), 22_050), source, target)
    assert np.isfinite(tinted.samples).all()
    assert np.abs(tinted.samples).max(initial=0.0) < 0.01
    assert tint.profile(tinted) is None


def test_the_stand_in_for_pkg_resources_does_not_stay() -> None:
    program = (
        "import sys; from mirrorchat.embedded.voice_tint import VoiceTint; VoiceTint();"
        "assert 'pyworld' in sys.modules and 'pkg_resources' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
