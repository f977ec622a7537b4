"""Words with their times from tokens, segments from words, and subtitles from segments."""

from support.speech import say

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Language, SpokenToken, TimedWord, Transcript
from mirrorchat.openai.timed_words import Segment, as_srt, as_vtt, joined, segments_of
from mirrorchat.wenet.text import timed_words, written

NO_AUDIO = Audio(say("Nothing.").samples, 16_000)


def transcript(language: Language, *tokens: tuple[str, float, float]) -> Transcript:
    spoken = tuple(SpokenToken(text, start, end, 0.5) for text, start, end in tokens)
    text = written([token.text for token in spoken], language)
    return Transcript(text, language, spoken, 0.5, timed_words(text, spoken))


ENGLISH = transcript(
    Language.ENGLISH, ("▁what", 0.1, 0.3), ("'s", 0.3, 0.4), ("▁i", 0.5, 0.6), ("<unk>", 0.6, 0.7), ("▁sa", 1.4, 1.5),
    ("id", 1.5, 1.75),
)  # fmt: skip
CHINESE = transcript(
    Language.CHINESE, ("你", 0.1, 0.2), ("好", 0.2, 0.3), ("▁wi", 0.4, 0.5), ("fi", 0.5, 0.6), ("吗", 0.6, 0.8),
)  # fmt: skip


def test_words_are_written_as_in_the_text() -> None:
    assert ENGLISH.words == (TimedWord("What's", 0.1, 0.4), TimedWord("I", 0.5, 0.6), TimedWord("said", 1.4, 1.75))
    assert [word.text for word in CHINESE.words] == ["你", "好", "wifi", "吗"]
    assert CHINESE.words[2] == TimedWord("wifi", 0.4, 0.6)
    assert timed_words("", ()) == ()


def test_a_pause_ends_a_segment() -> None:
    assert segments_of(ENGLISH, NO_AUDIO) == [Segment("What's I", 0.1, 0.6, 0.5), Segment("said", 1.4, 1.75, 0.5)]
    assert [each.text for each in segments_of(CHINESE, NO_AUDIO)] == ["你好 wifi 吗"]


def test_a_segment_is_no_longer_than_subtitles_are() -> None:
    words = [(f"▁w{number}", number * 0.5, number * 0.5 + 0.45) for number in range(40)]
    segments = segments_of(transcript(Language.ENGLISH, *words), NO_AUDIO)
    assert len(segments) == 3 and all(each.end_s - each.start_s <= 7.0 for each in segments)
    assert joined([each.text for each in segments]) == " ".join(word[1:] for word, _, _ in words).capitalize()


def test_without_times_a_segment_is_where_the_speech_is() -> None:
    spoken = say("This is a sentence.")
    (segment,) = segments_of(Transcript("This is a sentence", Language.ENGLISH), spoken)
    assert 0.0 <= segment.start_s < 0.5 and 0.7 < segment.end_s <= spoken.duration_s + 0.1
    assert segments_of(Transcript("", Language.ENGLISH), spoken) == []


def test_subtitles() -> None:
    segments = [Segment("One.", 0.0, 1.5, None), Segment("二", 3599.9996, 3661.25, None)]
    assert as_srt(segments) == ("1\n00:00:00,000 --> 00:00:01,500\nOne.\n\n2\n01:00:00,000 --> 01:01:01,250\n二\n\n")
    assert as_vtt(segments) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne.\n\n01:00:00.000 --> 01:01:01.250\n二\n\n"
    )
    assert as_srt([]) == "" and as_vtt([]) == "WEBVTT\n\n"
