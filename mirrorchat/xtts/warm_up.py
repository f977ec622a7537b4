"""The first sentences of a decode engine on a GPU, spoken before anybody waits for one.

Libraries load kernels and allocate workspace at the first use of each, which takes seconds in all.
"""

from collections.abc import Callable

import torch

from mirrorchat.concurrency.context import Context
from mirrorchat.xtts.gpt import GptInputs
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.utterance import Request, Utterance

TEXT_TOKENS = (8, 32, 128, 512)  # as far as the model allows: libraries have kernels for each magnitude
AUDIO_TOKENS = 12  # enough for two blocks of samples
LIMIT_S = 120.0
SPEAKER_NUMBERS = 512  # in a speaker embedding


def speak_first_sentences(submit: Callable[[Request], Utterance], gpt: GptInputs, conditioning_positions: int) -> None:
    """Speak sentences of different lengths, one after another. Raises MirrorChatError if one fails."""
    context = Context.after(LIMIT_S)
    for length in TEXT_TOKENS:
        request = Request(
            [0] * min(length, gpt.text_limit),
            conditioning=torch.zeros(1, conditioning_positions, gpt.width),
            speaker_embedding=torch.zeros(1, SPEAKER_NUMBERS, 1),
            seed=0,
            max_tokens=AUDIO_TOKENS,
            context=context,
            sampling=Sampling(min_tokens=AUDIO_TOKENS),
        )
        for _ in submit(request):
            pass
