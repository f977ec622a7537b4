"""Reasoning is taken out of an answer, in every form and however the answer is split; text about the marks stays."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorchat.chat.reasoning import Opening, OpeningMissing, ReasoningFilter, without_reasoning

# Answers with reasoning or tokens, and what is left of them.
ANSWERS = [
    ("<think>Hm.</think>Tides.", "Tides."),
    ("<think></think>\n\nTides.", "Tides."),
    ("\n<think>\nHm.\n</think>\n\nTides.", "Tides."),
    ("<THINK>Hm.</Think>Tides.", "Tides."),
    ("<thinking>Hm.</thinking>Tides.", "Tides."),
    ("<thought>Hm.</thought>Tides.", "Tides."),
    ("<reasoning>Hm.</reasoning>Tides.", "Tides."),
    ("<reflection>Hm.</reflection>Tides.", "Tides."),
    ("<seed:think>Hm.</seed:think>潮汐。", "潮汐。"),
    ("[THINK]Hm.[/THINK]Tides.", "Tides."),
    ("◁think▷Hm.◁/think▷Tides.", "Tides."),
    ('<think effort="low">Hm.</think>Tides.', "Tides."),
    ("<think/>Tides.", "Tides."),
    (" \n\nTides.\n\n* low", "Tides.\n\n* low"),
    ("&lt;think&gt;Hm.&lt;/think&gt;Tides.", "Tides."),
    ("<think>Hm <think>hm</think> hm.</think>Tides.", "Tides."),
    ("<think>He means the word <think> itself.</think>Tides.", "Tides."),
    ("<think>Is `</think>` the end? Or the </think> tag?</think>Tides.", "Tides."),
    ("<think>if a < b and b > c: ```c\nx</think>Tides.", "Tides."),
    ("One moment. <think>Hm.</think>Tides.", "One moment. Tides."),
    ("It is<think>hm</think> the moon.", "It is the moon."),
    ("<think>Hm.</think>Tides. <think>Hm.</think>Moon.", "Tides. Moon."),
    ("<think>Hm.</think>Tides.</think>", "Tides."),
    ("<think>Only this", ""),
    ("Tides.\n<think>And now", "Tides.\n"),
    ("Tides. <think>And now", "Tides. "),
    ("Tides.<|im_end|><think>And now", "Tides."),
    ('<details type="reasoning" done="true">\n<summary>1 s</summary>\n> Hm.\n</details>\nTides.', "Tides."),
    ("<details><summary>More</summary>Tides.</details>", "<details><summary>More</summary>Tides.</details>"),
    ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Tides.<|return|>", "Tides."),
    (
        "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
        "<|start|>assistant<|channel|>final<|message|>Tides.",
        "Tides.",
    ),
    ("<|channel|>analysis<|message|>Only this", ""),
    ("analysisHe asks about tides.assistantfinalTides.", "Tides."),
    ("Analysis of tides.", "Analysis of tides."),
    ("Here is my thought process: hm. Here is my response: Tides.", "Tides."),
    ("<|begin_of_thought|>Hm.<|end_of_thought|><|begin_of_solution|>Tides.<|end_of_solution|>", "Tides."),
    ("<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Tides.<|END_RESPONSE|>", "Tides."),
    ("<|channel>thought\nHm.<channel|>Tides.", "Tides."),
    ("<unused94>thought\nHm.<unused95>Tides.", "Tides."),
    ("<think>Hm.</think>\n<answer>\nTides.\n</answer>", "Tides.\n"),
    ("<思考>嗯。</思考>潮汐。", "潮汐。"),
    ("Tides.<|im_end|>", "Tides."),
    ("<|im_start|>assistant\nTides.<|im_end|>", "Tides."),
    ("<|start_header_id|>assistant<|end_header_id|>\n\nTides.<|eot_id|>", "Tides."),
    ("<s>Tides.</s>", "Tides."),
    ("[INST]Tides.[/INST]", "Tides."),
    ("<|assistant|>Tides.<|endoftext|>", "Tides."),
    ("<start_of_turn>model\nTides.<end_of_turn>", "Tides."),
    ("<｜Assistant｜>潮汐。<｜end▁of▁sentence｜>", "潮汐。"),
    ("Tides.<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\nMoon.", "Tides.\n\nMoon."),
]
# Answers that are about marks, or look like them; they stay as they are.
PLAIN = [
    "Use the <b> tag, or <thin> spaces.",
    "a < b, c > d, x <- y, i <= j, <3",
    "The <think> tag begins it.",
    "A model writes <think> before it answers.",
    "It ends with `</think>` on a line.",
    "它以“</think>”结尾。",
    "The </think> tag ends it.",
    "```xml\n<think>Hm.</think>\n<|im_end|>\n```\nSo it goes.",
    "~ [1] [see there] `code` ``x ` y`` [INS",
    "The <output> and </response> elements stay.",
    "R&D, a &lt; b, AT&T &amp; more &lt;b&gt;",
    "I think, therefore I am. Thinking [think",
    "价格 <100 元，温度 >5 度",
]
ALL = [*ANSWERS, *((text, text) for text in PLAIN)]
# Reasoning without its opening mark.
UNOPENED = [
    ("He asks about tides.\n</think>\n\nTides.", "Tides."),
    ("He asks about tides.</think>Tides.", "Tides."),
    ("他问潮汐。</think>潮汐。", "潮汐。"),
    ("</think>\n\nTides.", "Tides."),
    ("Hm.<|end|><|start|>assistant<|channel|>final<|message|>Tides.", "Tides."),
]


def filtered(pieces: list[str], opening: Opening = Opening.SENT, finish_reason: str = "stop") -> str:
    reasoning = ReasoningFilter(opening)
    return "".join([*map(reasoning.feed, pieces), reasoning.finish(finish_reason)])


@pytest.mark.parametrize(("answer", "text"), [*ALL, *UNOPENED])
def test_a_whole_answer(answer: str, text: str) -> None:
    assert without_reasoning(answer) == text


@pytest.mark.parametrize(("answer", "text"), ALL)
def test_an_answer_by_the_character(answer: str, text: str) -> None:
    assert filtered(list(answer)) == text


@pytest.mark.parametrize(("answer", "text"), [*UNOPENED, ("Run ```python\nx\n</think>Tides.", "Tides.")])
def test_an_answer_of_an_api_that_omits_the_opening_tag(answer: str, text: str) -> None:
    assert filtered(list(answer), Opening.MISSING) == text


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_split_gives_the_same_text(data: st.DataObject) -> None:
    parts = [text for text, _ in ALL] + ["<", "</", "think>", "`", "\n", "Okay, the user", " tag", "details>", "|>"]
    answer = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=4)))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(answer)), max_size=12)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert filtered(pieces, Opening.MISSING) == filtered([answer], Opening.MISSING)
    try:
        assert filtered(pieces) == without_reasoning(answer)
    except OpeningMissing:  # nothing that has been passed on can be taken back
        assert "</" in answer or "final" in answer


def test_text_comes_at_once_and_after_reasoning() -> None:
    reasoning = ReasoningFilter()
    assert reasoning.feed("The moon") == "The moon"
    before = reasoning.is_reasoning
    assert reasoning.feed(" pulls. <th") == " pulls. "
    assert reasoning.feed("ink>Hm.") == ""
    assert (before, reasoning.is_reasoning) == (False, True)
    assert reasoning.feed("</think>") == ""
    assert reasoning.feed(" So ") == " So "


def test_text_that_begins_like_reasoning_waits() -> None:
    reasoning = ReasoningFilter()
    assert reasoning.feed("Okay, the user asks about tides. ") == ""
    assert reasoning.is_reasoning
    assert reasoning.feed("</think>The moon.\n") == "The moon.\n"
    assert reasoning.opening is Opening.MISSING
    assert filtered(["Okay, the user interface is new."]) == "Okay, the user interface is new."
    assert filtered(["用户", "界面很好。"]) == "用户界面很好。"
    assert filtered(["Okay, the user asks about"], finish_reason="length") == ""
    assert filtered(["Alright, here is a long"], finish_reason="length") == "Alright, here is a long"


def test_a_closing_tag_after_text_that_was_passed_on() -> None:
    reasoning = ReasoningFilter()
    assert reasoning.feed("He asks about tides.") == "He asks about tides."
    with pytest.raises(OpeningMissing):
        reasoning.feed("\n</think>\n\nTides.")


def test_what_is_learned_of_an_api() -> None:
    def learned(answer: str, opening: Opening) -> Opening:
        reasoning = ReasoningFilter(opening)
        reasoning.finish("stop", answer)
        return reasoning.opening

    assert Opening.of_model("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B") is Opening.SUSPECTED
    assert Opening.of_model("QwQ-32B") is Opening.SUSPECTED
    assert Opening.of_model("gpt-4o-mini") is Opening.SENT
    assert learned("He asks.</think>Tides.", Opening.SUSPECTED) is Opening.MISSING
    assert learned("<think>Hm.</think>Tides.", Opening.SUSPECTED) is Opening.SENT
    assert learned("Tides.", Opening.SUSPECTED) is Opening.SENT
    assert learned("<think>Hm.</think>Tides.", Opening.MISSING) is Opening.MISSING


def test_a_field_for_reasoning_ends_the_wait_for_a_tag() -> None:
    reasoning = ReasoningFilter(Opening.SUSPECTED)
    reasoning.reasoned_apart()
    assert reasoning.feed("The moon.\n") == "The moon.\n"


def test_an_answer_that_waits_for_a_tag_and_ends_without_one() -> None:
    assert filtered(["The ", "moon."], Opening.MISSING) == "The moon."
    assert filtered(["The ", "moon"], Opening.MISSING, "length") == ""
    assert filtered(["The ", "moon"], finish_reason="length") == "The moon"
    assert filtered(["It is <think>hm"], finish_reason="length") == "It is "


@pytest.mark.parametrize(
    "part",
    [
        "<",
        "<think>",
        "</think>",
        "`",
        "[",
        "<|",
        "<details ",
        "<think ",
        "<|channel|>",
        "okay, ",
        " ",
        "◁",
        "a<think>",
        "<answer>",
    ],
)
def test_the_cost_is_linear(part: str) -> None:
    """With whitespace first, of which none is passed on before the closing tag."""
    started = time.perf_counter()
    reasoning = ReasoningFilter(Opening.MISSING)
    for piece in [" "] * 50_000 + [part] * 20_000:
        reasoning.feed(piece)
    reasoning.finish("stop", part * 50_000)
    assert time.perf_counter() - started < 15.0  # 0.5 s on an idle machine; quadratic cost takes minutes
