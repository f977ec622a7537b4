"""What chat templates leave in an answer: marks around reasoning, roles and channels, and single tokens.

Models write these marks as text, and many servers pass them on:

    <think>...</think>                                     DeepSeek-R1, Qwen3, and its other names; [THINK], ◁think▷
    <details type="reasoning">...</details>                Open WebUI
    <|channel|>analysis<|message|>...<|end|>               harmony (gpt-oss); the answer is in the channel `final`
    <|im_start|>assistant, <|im_end|>, </s>, [/INST], ...  tokens of templates

Every pattern has bounded repetitions, and no two of its parts can match the same text in two ways.
"""

import enum
import re


class MarkKind(enum.Enum):
    """What a mark means."""

    CODE = enum.auto()  # backticks, inside which all other marks are text
    OPENING = enum.auto()  # of reasoning
    CLOSING = enum.auto()
    EMPTY = enum.auto()  # of reasoning: it opens and closes at once
    DETAILS_OPENING = enum.auto()
    DETAILS_CLOSING = enum.auto()
    OTHER_CHANNEL = enum.auto()  # begins what is not the answer
    FINAL_CHANNEL = enum.auto()  # begins the answer
    CHANNEL_END = enum.auto()
    OTHER_ROLE = enum.auto()  # begins what a model without a stop writes for the user, or for a tool
    ANSWER_ROLE = enum.auto()
    PROSE_CLOSING = enum.auto()
    WRAPPER_OPENING = enum.auto()  # of the whole answer
    WRAPPER_CLOSING = enum.auto()
    TOKEN = enum.auto()  # it means nothing to people


_NAMES = (
    "thinking|think|thoughts?|reasoning|reason|reflection|scratchpad|analysis|antthinking|(?:inner|internal)_monologue"
    "|(?:inner|internal)_thoughts?|thought_process|chain_of_thought|deep_think|思考(?:过程)?|推理(?:过程)?|思维链"
)
_START = r"<\|(?:im_start|start_header_id|start)\|>|<start_of_turn>"
_ANSWER_ROLES = ("assistant", "model", "bot", "ai")
_OTHER_ROLES = ("user", "human", "system", "developer", "tool", "function", "ipython", "observation")
_ROLE = "|".join(_ANSWER_ROLES + _OTHER_ROLES)
_MESSAGE = r"[^<>]{0,60}(?:<\|constrain\|>[^<>]{0,40})?<\|message\|>"
_ATTRIBUTES = r"(?:\s[^<>]{0,300}|/)?"

MARK = re.compile(
    rf"""
    (?P<code>`{{1,16}})
    | (?:<|&lt;)(?P<slash>/?)(?:[a-z]{{1,12}}:)?(?P<tag>{_NAMES}){_ATTRIBUTES}(?:>|&gt;)
    | (?P<details><details\s(?=[^<>]{{0,300}}reasoning)[^<>]{{0,300}}>)
    | (?P<details_end></details>)
    | ◁(?P<kimi>/?)think▷ | \[(?P<bracket>/?)think\]
    | <\|channel\|>\s?(?P<channel>analysis|commentary|final|)(?P<message>{_MESSAGE})?
    | (?P<thought_channel><\|channel>(?:thought)?) | (?P<channel_end><channel\|>)
    | (?P<start>{_START})\s?(?P<role>{_ROLE}|)(?:\sto=[^\s<>]{{1,60}})?
    | <[|｜](?P<token>[^<>|｜\s]{{1,40}})[|｜]>
    | <unused(?P<unused>94|95)>
    | (?P<instruction>\[/?INST\])
    | (?P<prose_end>assistant(?:commentary)?final|here\ is\ my\ response:|\[begin\ final\ response\])
    | <(?P<wrapper>/?)(?:answer|final_answer|final|response|output|回答)>
    | (?P<plain></?s>|<</?sys>>|<end_of_turn>|</?(?:eos|bos|pad|unk)>|\[end\ final\ response\])
    """,
    re.IGNORECASE | re.VERBOSE,
)

MARK_LIMIT_CHARS = 400  # no mark is longer, with what is read after it

# The end of a text that may be the beginning of a mark, or a mark whose next word is not known yet.
UNFINISHED = re.compile(
    rf"""(?:
    `{{1,16}}
    | <(?:[/|｜]/?)?[\w▁:.-]{{0,40}}[|｜/]?
    | &(?:l|lt|lt;/?[\w:]{{0,40}}/?(?:&|&g|&gt)?)?
    | </?(?:[a-z]{{1,12}}:)?(?:{_NAMES}|details)\s[^<>]{{0,300}}
    | (?:<|&lt;)/?(?:[a-z]{{1,12}}:)?(?:{_NAMES}){_ATTRIBUTES}(?:>|&gt;)(?:\s?(?-i:[a-z标签记块]){{0,8}}|["'`”’」])
    | <\|channel\|>[^<>]{{0,60}}(?:<[|a-z]{{0,12}}(?:\|>[^<>]{{0,40}}(?:<[|a-z]{{0,10}})?)?)?
    | <\|channel>[a-z]{{0,7}}
    | (?:{_START})\s?(?:[a-z]{{0,12}}|(?:{_ROLE})\s(?:t|to|to=[^\s<>]{{0,60}})?)
    | <[|｜][^<>|｜\s]{{1,40}}[|｜]>(?:\s(?-i:[a-z]){{0,8}})?
    | <</?[a-z]{{0,3}}>? | ◁/?[a-z]{{0,5}} | \[/?[a-z]{{0,8}}(?:\ [a-z]{{0,8}}){{0,2}}
    )\Z""",
    re.IGNORECASE | re.VERBOSE,
)

# A word after a mark that shows that the sentence is about the mark.
_NOUN = re.compile(r"\s?(?:(?:tag|token|block|element|marker|section)s?\b|标签|标记|块)", re.IGNORECASE)
_QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "『": "』", "《": "》"}


def kind_of_mark(mark: re.Match[str]) -> MarkKind:
    """Return what a match of MARK means."""
    groups = mark.groupdict()
    if groups["code"]:
        return MarkKind.CODE
    if groups["tag"]:
        return MarkKind.EMPTY if mark[0].endswith("/>") else _opening(groups["slash"])
    for name in ("kimi", "bracket"):
        if groups[name] is not None:
            return _opening(groups[name])
    if groups["wrapper"] is not None:
        return MarkKind.WRAPPER_CLOSING if groups["wrapper"] else MarkKind.WRAPPER_OPENING
    if groups["unused"]:
        return _opening("" if groups["unused"] == "94" else "/")
    if groups["channel"] is not None:
        return _kind_of_channel(groups["channel"].lower(), has_message=bool(groups["message"]))
    if groups["start"]:
        return _kind_of_role(groups["role"].lower())
    if groups["token"]:
        return _kind_of_token(groups["token"].lower().replace("▁", "_"))
    if groups["instruction"]:
        return MarkKind.ANSWER_ROLE if "/" in mark[0] else MarkKind.OTHER_ROLE
    return next((kind for name, kind in _KINDS.items() if groups[name]), MarkKind.TOKEN)


_KINDS = {
    "details": MarkKind.DETAILS_OPENING,
    "details_end": MarkKind.DETAILS_CLOSING,
    "thought_channel": MarkKind.OTHER_CHANNEL,
    "channel_end": MarkKind.CHANNEL_END,
    "prose_end": MarkKind.PROSE_CLOSING,
}


def _opening(slash: str) -> MarkKind:
    return MarkKind.CLOSING if slash else MarkKind.OPENING


def _kind_of_channel(name: str, *, has_message: bool) -> MarkKind:
    if name == "final":
        return MarkKind.FINAL_CHANNEL
    return MarkKind.OTHER_CHANNEL if name or has_message else MarkKind.TOKEN


def _kind_of_role(role: str) -> MarkKind:
    if role in _ANSWER_ROLES:
        return MarkKind.ANSWER_ROLE
    return MarkKind.OTHER_ROLE if role in _OTHER_ROLES else MarkKind.TOKEN


def _kind_of_token(name: str) -> MarkKind:
    """Return the kind of `<|name|>`."""
    if re.search(r"think|thought|reasoning", name):
        return MarkKind.CLOSING if re.search(r"^/|^end|end$", name) else MarkKind.OPENING
    if name in ("end", "return", "call"):
        return MarkKind.CHANNEL_END
    return _kind_of_role(name)


def is_quoted(text: str, start: int, end: int, before: str) -> bool:
    """Tell whether the sentence is about the mark `text[start:end]`: it stands in quotes, or a noun follows.

    `before` is the character before `text`.
    """
    quote = text[start - 1] if start else before
    return _QUOTES.get(quote, "\0") == text[end : end + 1] or bool(_NOUN.match(text, end))
