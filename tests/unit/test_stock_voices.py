"""Stock voices of other servers are told from names that people give their own voices."""

import time

import pytest

from mirrorchat.openai.stock_voices import NAME_LIMIT_CHARS, OPENAI_VOICES, is_stock_voice


@pytest.mark.parametrize(
    "name",
    [
        *OPENAI_VOICES, "Nova", "af", "af_heart", "bm_george", "zf_xiaobei", "jf_alpha", "bf_emma(2)+am_adam(1.5)",
        "af_bella+af_sky", "af_bella*0.4+af_heart*0.6", "EN-Default", "ZH", "expr-voice-5-m", "en-Alice_woman",
        "English_expressive_narrator", "Chinese (Mandarin)_Reliable_Executive",
        "en_US-lessac-medium", "zh_CN-huayan-x_low", "en_GB-southern_english_female-low",
        "voice-en-us-amy-low", "en-us-amy-low.onnx", "en-US-AriaNeural", "zh-CN-XiaoxiaoNeural",
        "zh-CN-liaoning-XiaobeiNeural", "sr-Latn-RS-NicholasNeural", "cmn-CN-Chirp3-HD-Aoede", "Emily.wav",
        "female_01.wav", "21m00Tcm4TlvDq8ikWAM", "694f9389-aac1-45b6-b726-9d9369183238",
        "7f92f8afb8ec43bf81429cc1c9199cb1", "FunAudioLLM/CosyVoice2-0.5B:anna", "v2/en_speaker_6", "en_speaker_6",
        "speaker_0", "p225", "3", "male", "male-qn-qingse", "zh_female_wanwanxiaohe_moon_bigtts", "Fritz-PlayAI",
        "aura-asteria-en", "aura-2-thalia-en", "longxiaochun_v2", "Kore", "tara", "Claribel Dervla", "中文女",
    ],
)  # fmt: skip
def test_stock_voices_are_known(name: str) -> None:
    assert is_stock_voice(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "default", "Anna", "me", "Ana", "nobody", "Li", "李明", "Mum", "Jean-Luc", "wu-yi-fan", "xu_li_wei", "jm",
        "my-voice", "Anna2", "voice", "voice_mine", "voice_1", "voice_" + "0" * 32, "Emily wav", "p2255", "1234567",
        "x" * 300, "a" * 20, "af_" + "x" * NAME_LIMIT_CHARS,
    ],
)  # fmt: skip
def test_peoples_names_and_ids_of_this_server_are_not(name: str) -> None:
    assert not is_stock_voice(name)


@pytest.mark.parametrize("part", ["a", "1", "af_a+", "(", "en-us-", "/", "-", "af_a(1)", "é"])
def test_hostile_names_cost_nothing(part: str) -> None:
    started = time.perf_counter()
    for length in range(1, NAME_LIMIT_CHARS, 16):
        is_stock_voice((part * NAME_LIMIT_CHARS)[:length])
    assert time.perf_counter() - started < 0.5
