"""Checks the models for `mirrorchat doctor`: the engine of each language and stage, and the files of its model.

It loads no model and does not import torch.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirrorchat.cli.doctor.findings import Finding, State, ok, problem, warning
from mirrorchat.engines import Language, Tier
from mirrorchat.errors import InstallError
from mirrorchat.models.progress import size_text
from mirrorchat.models.store import BY_HAND, Record, faults, installed_name, read_record, size_on_disk
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import (
    OWN_PACKAGE,
    WENET_FILES,
    WENET_PACKAGES,
    XTTS_FILES,
    XTTS_PACKAGES,
    absent_files,
    absent_packages,
    missing_kokoro,
    missing_small_voice,
    missing_whisper,
)

INSTALL = "`.venv/bin/mirrorchat models install {}`"
_REPLACE = "`.venv/bin/mirrorchat models install {} --replace`"


@dataclass(frozen=True)
class Stage:
    """A stage with a choice of engines. `choice` is the setting, `real` the engine whose model belongs in `folder`."""

    title: str
    choice: str
    real: str
    folder: Path
    files: Sequence[str]
    packages: Sequence[str]
    fallback: str  # describes the engine without the model; empty if there is none
    fallback_engine: str = "embedded"  # its name: "small" or "embedded"

    @property
    def is_real(self) -> bool:
        """Tell whether `engine_choice` will load the model."""
        return self.choice == self.real or (self.choice == "auto" and not self.lacks())

    def lacks(self) -> list[str]:
        """Return the missing files, or if there are none the missing packages."""
        return absent_files(self.folder, self.files) or absent_packages(self.packages)


def stages(settings: Settings) -> list[Stage]:
    """Return the stages. Speech in both languages is one stage if both have the same setting and the same engine."""
    speech: dict[tuple[str, str], list[Language]] = {}
    for language in Language:
        stage = _synthesis(settings, [language])
        speech.setdefault((stage.choice, stage.real if stage.is_real else stage.fallback_engine), []).append(language)
    recognition = [_recognition(settings, language) for language in Language]
    return recognition + [_synthesis(settings, languages) for languages in speech.values()]


def _small_voice(settings: Settings, language: Language) -> str | None:
    """Return what speaks `language` in the small tier; None if it lacks something or is not wanted."""
    folder = settings.models_dir / "kokoro"
    if settings.synthesizer[language.value] == "embedded" or missing_small_voice(folder, language):
        return None
    return "hibari speaks" if missing_kokoro(folder) else "hibari and Kokoro speak"


def _synthesis(settings: Settings, languages: Sequence[Language]) -> Stage:
    title = f"speaking {' and '.join(each.value.capitalize() for each in languages)}"
    choice, folder = settings.synthesizer[languages[0].value], settings.models_dir / "xtts-v2"
    small = _small_voice(settings, languages[0])
    hard = ", in Mandarin hard to understand" if Language.CHINESE in languages else ""
    fallback, engine = (small, "small") if small else (f"eSpeak NG speaks{hard}", "embedded")
    return Stage(title, choice, "xtts", folder, XTTS_FILES, XTTS_PACKAGES, fallback, engine)


def _recognition(settings: Settings, language: Language) -> Stage:
    title, choice = f"hearing {language.value.capitalize()}", settings.recognizer[language.value]
    fallback, engine = "", "embedded"
    if choice != "embedded" and not missing_whisper(settings.models_dir / "whisper-base"):
        fallback, engine = "Whisper base recognizes", "small"
    elif language is Language.ENGLISH and importlib.util.find_spec("pocketsphinx"):
        fallback = "pocketsphinx recognizes short, clear questions"
    folder = settings.models_dir / f"wenet-{language.code}"
    return Stage(title, choice, "wenet", folder, WENET_FILES, WENET_PACKAGES, fallback, engine)


def needs_full(settings: Settings) -> bool:
    """Tell whether the packages of `full` are needed: by a named engine, or by an installed model."""
    return any(
        stage.choice == stage.real
        or stage.choice.startswith(OWN_PACKAGE)
        or (stage.choice == "auto" and stage.folder.is_dir() and any(stage.folder.iterdir()))
        for stage in stages(settings)
    )


def weight_findings(settings: Settings, *, thorough: bool) -> list[Finding]:
    """Return a finding for each stage. `thorough` compares checksums, otherwise only sizes are compared."""
    return [ok("folder", str(settings.models_dir)), *(_stage(stage, thorough) for stage in stages(settings))]


def _stage(stage: Stage, thorough: bool) -> Finding:
    if stage.choice.startswith(OWN_PACKAGE):
        return _own_package(stage)
    if stage.choice not in ("auto", stage.real):
        return _fallback(stage, f"{stage.choice}, named in the settings")
    try:
        if stage.folder.is_dir() and any(stage.folder.iterdir()):
            return _folder(stage, thorough)
    except OSError as error:
        remedy = f"give the user of the server read access to {stage.folder}"
        return problem(stage.title, f"{stage.folder} cannot be read: {error.strerror}", remedy)
    found = f"no model in {stage.folder}"
    install = INSTALL.format(stage.folder.name)
    if stage.choice == stage.real:
        return problem(stage.title, f"{found}, and {stage.real} is named in the settings", install, engine="none")
    return _fallback(stage, found)


def _fallback(stage: Stage, reason: str) -> Finding:
    small, real = INSTALL.format("small"), INSTALL.format(stage.folder.name)
    is_small, is_named = stage.fallback_engine == "small", stage.choice != "auto"
    if stage.choice == "small" and not is_small:
        return problem(stage.title, f"the small model is not installed: {reason}", small, engine="none")
    if is_small:
        up = "" if is_named else f"; to go up a tier: {real}"
        return ok(stage.title, f"small tier: {stage.fallback}: {reason}{up}", engine="small", tier=Tier.SMALL)
    if not stage.fallback:
        return warning(stage.title, f"floor: no engine: {reason}", small, engine="none", tier=Tier.FLOOR)
    report = ok(stage.title, f"floor: {stage.fallback}: {reason}", engine="embedded", tier=Tier.FLOOR)
    return report if is_named else replace(report, state=State.WARNING, remedy=small)


def _own_package(stage: Stage) -> Finding:
    if importlib.util.find_spec("wenet"):
        return ok(stage.title, f"{stage.choice}, in WeNet's own package", engine=stage.choice)
    try:
        from mirrorchat.wenet.package_load import INSTALL as install
    except ImportError:
        install = "`scripts/environment full`, then follow the documentation of WeNet's own package"
    return problem(stage.title, f"{stage.choice}: WeNet's own package is not installed", install, engine="none")


def _folder(stage: Stage, thorough: bool) -> Finding:
    """Return whether a folder has the installed files and all that the engine needs."""
    name = installed_name(stage.folder)
    try:
        record = read_record(stage.folder)
    except InstallError as error:
        return problem(stage.title, error.message, _REPLACE.format(stage.folder.name))
    if record and (wrong := faults(stage.folder, record, contents=thorough)):
        remedy = _REPLACE.format(record.name)
        return problem(stage.title, f"{name} in {stage.folder}: {'; '.join(wrong)}", remedy, model=name)
    lacking = stage.lacks()
    if lacking and set(lacking) <= set(stage.files):
        found = f"{stage.folder} has no {', '.join(lacking)}"
        return problem(stage.title, found, _REPLACE.format(stage.folder.name), model=name)
    engine = stage.real if stage.is_real else stage.fallback_engine if stage.fallback else "none"
    found = f"{stage.real}, {_model(record, thorough)}, {size_text(size_on_disk(stage.folder))} in {stage.folder}"
    if lacking:  # the section on packages reports it as a problem
        found += f"; not used: {', '.join(lacking)} is not installed"
        return warning(stage.title, found, "`scripts/environment full`", model=name, engine=engine)
    return ok(stage.title, found, model=name, engine=engine)


def _model(record: Record | None, thorough: bool) -> str:
    if record is None:
        return f"a model that was put there {BY_HAND} (it has no record)"
    return f"{record.name}, {len(record.files)} files of the recorded {'checksums' if thorough else 'sizes'}"
