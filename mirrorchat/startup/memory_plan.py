"""The memory plan: before anything is loaded, whether the chosen models fit into the free memory of each device.

If they do not fit, settings are stepped down in this order until they do: weights of fewer bits (int8 on the CPU; a
GPU has 16 from the start), XTTS's batch, WeNet on the CPU while XTTS stays on the GPU. Only settings at their defaults
change. A setting that a person has set is kept; the refusal names it if the models would fit with another value.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.host_memory import free_host_bytes
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import OWN_PACKAGE, chosen_recognizer, chosen_synthesizer
from mirrorchat.startup.memory_small import Part, hearing_parts, process_part, speaking_parts

if TYPE_CHECKING:  # they need torch, which is not installed where only small and embedded engines run
    import torch

    from mirrorchat.startup.memory_parts import Choice, Demand
    from mirrorchat.xtts.linear import WeightMode

STEPS_OF_SETTING = ("xtts_weights", "wenet_weights", "xtts_batch", "device")


@dataclass(frozen=True)
class MemoryPlan:
    """The parts of the models, the free bytes of each device, and the settings that were stepped down to fit.

    `settings` are those to load with, and `wenet_device` is the device of WeNet's checkpoints. `trouble` says why a
    GPU that the driver shows is not used. `advice` says what to set if `fits` is false.
    """

    settings: Settings
    wenet_device: str
    parts: tuple[Part, ...] = ()
    free: Mapping[str, int] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    advice: str = ""
    trouble: str = ""

    @property
    def fits(self) -> bool:
        return _fits(self.parts, self.free)

    def needed_bytes(self, device: str) -> int:
        """Return the most bytes that the models take at once on the device of that name."""
        return _needed(self.parts, device)

    def steps_of(self, engine: str) -> list[str]:
        """Return the settings of `engine` (`xtts` or `wenet`) that were stepped down, as reasons."""
        return [f"{step}, to fit into memory" for step in self.steps if step.lower().startswith(engine)]

    def lines(self) -> list[str]:
        """Return the plan as text: a line for each device, each part and each step."""
        devices = [
            f"memory on {device}: {_shown(needed)} needed, {_shown(free)} free"
            for device, needed, free in _needs(self.parts, self.free)
        ]
        steps = [f"memory: {step}, to fit" for step in self.steps]
        return [*devices, *map(_line, self.parts), *steps]

    def require_fit(self) -> None:
        """Raise ConfigurationError, with the needed and the free bytes and what to set, if the models do not fit."""
        short = [
            f"{device} has {_shown(free)} free ({free} bytes), and {_shown(needed)} are needed ({needed} bytes)"
            for device, needed, free in _needs(self.parts, self.free)
            if needed > free
        ]
        if short:
            even = f" even with {', '.join(self.steps)}" if self.steps else ""
            raise ConfigurationError(f"the models do not fit into memory{even}: {'; '.join(short)}; {self.advice}")


@dataclass(frozen=True)
class StepsDown:
    """The values that may be tried, in order: XTTS's weights, WeNet's weights, smaller batches, WeNet on the CPU."""

    xtts_weights: tuple["WeightMode", ...] = ()
    wenet_weights: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    moves_wenet: bool = False

    def choices(self, first: "Choice") -> Iterator["Choice"]:
        """Yield `first` and then choices that take less and less memory. Moving WeNet to the CPU restores the batch."""
        yield first
        choice = first
        for mode in self.xtts_weights:
            choice = replace(choice, xtts_weights=mode)
            yield choice
        for kept_as in self.wenet_weights:
            choice = replace(choice, wenet_weights=kept_as)
            yield choice
        for batch in self.batches:
            yield replace(choice, xtts_batch=batch)
        if self.moves_wenet:
            choice = replace(choice, wenet_device="cpu", wenet_weights="auto")
            for batch in (first.xtts_batch, *self.batches):
                yield replace(choice, xtts_batch=batch)


def plan_memory(
    settings: Settings, *, device: "torch.device | None" = None, free: Mapping[str, int] | None = None
) -> MemoryPlan:
    """Return the memory plan for the models that `settings` choose. It reads sizes from the files and loads nothing.

    `device` defaults to the one of the settings, and `free`, the free bytes of `cpu` and of the device by name, to
    those of this host. Without any model the plan is empty.

    Raises ConfigurationError if the device cannot be used, or not with the weights that are set.
    """
    if not _is_heavy(settings):
        return _small_plan(settings, free)
    from mirrorchat.hardware.devices import free_bytes, gpu_trouble, usable_device
    from mirrorchat.startup.memory_parts import Choice, Demand
    from mirrorchat.synth import weight_mode
    from mirrorchat.xtts.gpt import check_mode

    device = device or usable_device(settings.device)
    demand = Demand.of(settings, device)
    mode = weight_mode(settings.xtts_weights, device)
    if demand.xtts is not None:
        check_mode(mode, device)
    first = Choice(mode, settings.xtts_batch, settings.wenet_weights, str(device))
    if free is None:
        free = {name: free_bytes(name) for name in dict.fromkeys((str(device), "cpu"))}
    trouble = gpu_trouble() if settings.device == "auto" and device.type == "cpu" else ""
    return replace(fit(settings, demand, first, free), trouble=trouble)


def _small_plan(settings: Settings, free: Mapping[str, int] | None) -> MemoryPlan:
    """Return the plan without a model of WeNet or XTTS, on the CPU."""
    hearing, speaking = hearing_parts(settings), speaking_parts(settings)
    if not hearing and not speaking:
        return MemoryPlan(settings, settings.device)
    ways = ["recognizer = 'embedded'"] * bool(hearing) + ["synthesizer = 'embedded'"] * bool(speaking)
    return MemoryPlan(
        settings,
        settings.device,
        (process_part(), *hearing, *speaking),
        {"cpu": free_host_bytes() if free is None else free["cpu"]},
        advice=f"free some memory, or set {' and '.join(ways)}",
    )


def fit(settings: Settings, demand: "Demand", first: "Choice", free: Mapping[str, int]) -> MemoryPlan:
    """Return the plan with the first choice that fits. If none fits, it is the plan with the last one, and advice."""
    default = Settings()
    named = frozenset(name for name in STEPS_OF_SETTING if getattr(settings, name) != getattr(default, name))
    chosen, fits = _first_fitting(demand, _steps_down(demand, first, named), first, free)
    advice = "" if fits else _advice(settings, demand, first, free, named)
    lighter = chosen.xtts_weights != first.xtts_weights
    return MemoryPlan(
        replace(
            settings,
            xtts_weights=str(chosen.xtts_weights) if lighter else settings.xtts_weights,
            xtts_batch=chosen.xtts_batch,
            wenet_weights=chosen.wenet_weights,
        ),
        chosen.wenet_device if chosen.wenet_device != first.wenet_device else settings.device,
        tuple(demand.parts(chosen)),
        free,
        tuple(_described(demand, first, chosen)),
        advice,
    )


def _is_heavy(settings: Settings) -> bool:
    names = [chosen_synthesizer(settings, language).name for language in Language]
    names += [chosen_recognizer(settings, language).name for language in Language]
    return any(name in ("xtts", "wenet") or name.startswith(OWN_PACKAGE) for name in names)


def _steps_down(demand: "Demand", first: "Choice", named: frozenset[str]) -> StepsDown:
    """Return the values that may be tried while the settings in `named` keep theirs."""
    from mirrorchat.xtts.linear import WeightMode

    order = (WeightMode.FP32, WeightMode(demand.light_weights))
    if not demand.gpu:
        order = (WeightMode.FP32, WeightMode.FP16W, *((WeightMode.INT8,) if demand.native else ()))
    speaks = demand.xtts is not None
    xtts_weights = order[order.index(first.xtts_weights) + 1 :] if first.xtts_weights in order and speaks else ()
    wenet_weights = () if demand.wenet_is_light(first) else (demand.light_weights,)
    return StepsDown(
        xtts_weights if "xtts_weights" not in named else (),
        wenet_weights if "wenet_weights" not in named else (),
        tuple(range(demand.slots(first) - 1, 0, -1)) if "xtts_batch" not in named else (),
        demand.gpu and bool(demand.wenet) and not named & {"device", "wenet_weights"},
    )


def _first_fitting(
    demand: "Demand", steps: StepsDown, first: "Choice", free: Mapping[str, int]
) -> tuple["Choice", bool]:
    """Return the first choice that fits and True, or else the last choice and False."""
    choices = list(steps.choices(first))
    fitting = next((choice for choice in choices if _fits(demand.parts(choice), free)), None)
    return fitting or choices[-1], fitting is not None


def _described(demand: "Demand", first: "Choice", chosen: "Choice") -> Iterator[str]:
    if chosen.xtts_weights != first.xtts_weights:
        yield f"XTTS's weights in {chosen.xtts_weights} instead of {first.xtts_weights}"
    if chosen.wenet_device != first.wenet_device:
        yield f"WeNet on the CPU instead of {first.wenet_device}"
    elif chosen.wenet_weights != first.wenet_weights:
        yield f"WeNet's weights in {chosen.wenet_weights}"
    if demand.slots(chosen) < demand.slots(first):
        yield f"XTTS's batch {demand.slots(chosen)} instead of {demand.slots(first)}"


def _advice(
    settings: Settings, demand: "Demand", first: "Choice", free: Mapping[str, int], named: frozenset[str]
) -> str:
    """Return what to set: other values for settings that a person has set, or else engines that need less memory."""
    kept = named - ({"device"} if settings.device not in ("cuda", "cuda:0") else set())
    chosen, fits = _first_fitting(demand, _steps_down(demand, first, named - kept), first, free)
    values = {
        "xtts_weights": (repr(str(chosen.xtts_weights)), chosen.xtts_weights != first.xtts_weights),
        "xtts_batch": (repr(chosen.xtts_batch), chosen.xtts_batch != first.xtts_batch),
        "wenet_weights": (repr(chosen.wenet_weights), chosen.wenet_weights != first.wenet_weights),
        "device": ("'auto'", chosen.wenet_device != first.wenet_device),
    }
    changes = [
        f"{name} = {value} instead of {getattr(settings, name)!r}"
        for name, (value, changed) in values.items()
        if name in kept and changed
    ]
    if fits and changes:
        return f"set {' and '.join(changes)}"
    ways = ["device = 'cpu'"] if demand.gpu else []
    ways += ["synthesizer = 'embedded'"] if demand.xtts is not None else ["recognizer = 'embedded'"]
    return f"free some memory, or set {' or '.join([*changes, *ways])}"


def _fits(parts: Sequence[Part], free: Mapping[str, int]) -> bool:
    return all(needed <= available for _, needed, available in _needs(parts, free))


def _needs(parts: Sequence[Part], free: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Return the name, the needed and the free bytes of each device."""
    return [(device, _needed(parts, device), available) for device, available in free.items()]


def _needed(parts: Sequence[Part], device: str) -> int:
    """Return the most bytes that the parts on `device` take at once.

    Parts load one after another, so the memory for loading is used again, and later for computation. Parts on one
    stream of a GPU compute in turns, those on other streams and on the CPU at the same time.
    """
    here = [part for part in parts if part.device == device]
    work: dict[object, int] = defaultdict(int)
    for index, part in enumerate(here):
        turn = index if device == "cpu" else part.stream
        work[turn] = max(work[turn], part.bytes.work)
    loading = max((part.bytes.loading for part in here), default=0)
    return sum(part.bytes.kept for part in here) + max(loading, sum(work.values()))


def _line(part: Part) -> str:
    times = ((part.bytes.loading, "while it loads"), (part.bytes.work, "at work"))
    more = [f", {_shown(size)} more {when}" for size, when in times if size]
    note = f" ({part.note})" if part.note else ""
    return f"memory on {part.device}: {_shown(part.bytes.kept)} for {part.name}{''.join(more)}{note}"


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
