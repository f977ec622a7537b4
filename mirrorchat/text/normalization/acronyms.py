"""Acronyms that both languages spell (FBI, CPU, ChatGPT). NASA and words that are shouted stay words."""

import re

_TOKEN = re.compile(r"(?<![A-Z0-9'’])[A-Z]{2,6}(?:s(?![a-z]))?(?![A-Za-z])")
_LETTER_AFTER = re.compile(r"(?<= [A-Z])-(?=[A-Z](?![A-Za-z]))")  # USB-C
_MOST_CHARS = 6
_CONSONANTS = re.compile(r"[B-DF-HJ-NP-TV-XZ]{2,6}")
_SOUNDS = frozenset({"HM", "HMM", "SH", "SHH", "PSST", "MR", "MRS", "DR", "ST", "VS"})
# With a vowel they could be words: only those that are always spelled.
_WITH_VOWELS = re.compile(
    r"ABC|ABS|AC|AD|ADHD|AES|AGI|AI|AMD|API|APR|AQI|AR|ASAP|ASMR|ATC|ATM|ATP|ATV|AV|AWS|BA|BCE|BMI|CE|CET|CI|CEO|CFO|CIA|CIO"
    r"|CMO|CO|COO|CPA|CPI|CPU|CSI|CTO|DEA|DIY|DNA|DOB|DUI|ECG|EDT|EST|EDM|EEG|EKG|EMS|EMT|ENT|EP|EPA|EQ|ESG|ESL|ESP|ESPN|ETA"
    r"|ETF|EU|EV|FAA|FAQ|FBI|FDA|FYI|GI|GMO|GPA|GPU|GRE|HDMI|HIV|IBM|IBS|ID|IDE|IMF|IMO|IO|IOU|IP|IPA|IPO|IQ|IRS|ISBN"
    r"|ISO|ISP|ISS|IT|IU|IUD|LA|LAPD|LED|MBA|MIT|MLA|MRI|NBA|NCAA|NDA|NGO|NIH|NPU|NSA|NYC|NYU|OCD|OCR|OECD|OEM|OKR|OS|OTA"
    r"|OTC|OTP|PA|POV|QA|RIP|RNA|ROI|RPG|SEO|SOP|SOS|SUV|TPU|UAE|UAV|UCLA|UFC|UFO|UHD|UI|UK|UN|UPS|URL|US|USA|USB|USC"
    r"|USD|USSR|UTC|UTI|UV|UX|VAT|VIP|VOA|WHO"
)
_MIXED = {"PhD": "P H D", "IoT": "I o T"}

FILE_ENDINGS = {
    "py": "P Y", "js": "J S", "ts": "T S", "pdf": "P D F", "html": "H T M L", "css": "C S S", "txt": "T X T",
    "json": "json", "doc": "doc", "docx": "doc X", "xls": "X L S", "xlsx": "X L S X", "ppt": "P P T",
    "pptx": "P P T X", "png": "P N G", "jpg": "J P G", "jpeg": "J peg", "gif": "gif", "svg": "S V G",
    "mp3": "M P 3", "mp4": "M P 4", "zip": "zip", "exe": "E X E", "md": "M D", "csv": "C S V", "sh": "S H",
    "cpp": "C P P", "xml": "X M L", "yaml": "yaml", "yml": "Y M L", "sql": "S Q L", "log": "log",
    "toml": "toml", "ini": "ini", "cfg": "C F G", "conf": "conf", "env": "env", "bat": "bat", "rs": "R S", "go": "go",
    "java": "java", "rb": "R B", "php": "P H P", "jsx": "J S X", "tsx": "T S X", "vue": "vue", "ipynb": "I P Y N B",
    "mov": "mov", "mkv": "M K V", "wav": "wav", "flac": "flac", "webp": "web P", "psd": "P S D", "epub": "E pub",
    "tar": "tar", "gz": "G Z", "rar": "rar", "iso": "I S O", "apk": "A P K", "dmg": "D M G", "jar": "jar",
    "dll": "D L L", "db": "D B", "bak": "bak", "tmp": "temp", "htm": "H T M", "rtf": "R T F", "tsv": "T S V",
}  # fmt: skip


def spell_acronyms(text: str) -> str:
    """Return `text` with its acronyms in separate letters: `F B I`, `C P U's`, `Chat G P T`."""
    for written, letters in _MIXED.items():
        text = re.sub(rf"(?<![A-Za-z]){written}(?![a-z])", letters, text)
    return _LETTER_AFTER.sub(" ", _TOKEN.sub(_spelled, text))


def is_spelled(capitals: str) -> bool:
    """Return whether `capitals` is spelled in every context."""
    return bool(_WITH_VOWELS.fullmatch(capitals) or (_CONSONANTS.fullmatch(capitals) and capitals not in _SOUNDS))


def _spelled(match: re.Match[str]) -> str:
    capitals = match[0].rstrip("s")
    text, start, end = match.string, match.start(), match.end()
    neighbours = re.findall(r"[A-Z]{2,}$", text[max(0, start - 20) : start].rstrip(" "))
    neighbours += re.findall(r"^[A-Z]{2,}", text[end : end + 20].lstrip(" "))
    is_shouted = _WITH_VOWELS.fullmatch(capitals) and any(not is_spelled(word[:_MOST_CHARS]) for word in neighbours)
    if is_shouted or not is_spelled(capitals):
        return match[0]
    apart = " " if text[start - 1 : start].islower() else ""
    return apart + " ".join(capitals) + ("'s" if match[0].endswith("s") else "")
