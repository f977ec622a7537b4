"""Whether the chosen models fit into memory, said before anything is loaded: what each part takes, and what is free.

Where they do not fit, settings are stepped down in this order until they do: weights of fewer bits (on a GPU 16, on the
CPU XTTS's int8), XTTS's batch, WeNet on the CPU beside XTTS on the GPU. Only settings at their defaults are: what a
person has set to another value is kept, and named in the refusal where it is in the way.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import OWN_PACKAGE, chosen_recognizer, chosen_synthesizer

if TYPE_CHECKING:  # they need torch, which is not there where nothing is to be planned
    import torch

    from mirrorchat.startup.memory_parts import Choice, Demand, Part
    from mirrorchat.xtts.linear import WeightMode

STEPS_OF_SETTING = ("xtts_weights", "wenet_weights", "xtts_batch", "device")


@dataclass(frozen=True)
class MemoryPlan:
    """The parts of what will be loaded, the bytes that are free at each place, and what was stepped down to fit.

    `settings` are to be loaded; `wenet_device` is where WeNet's checkpoints go. `trouble` says why a GPU is not used
    that the driver shows, `advice` what to set where `fits` is false.
    """

    settings: Settings
    wenet_device: str
    parts: tuple["Part", ...] = ()
    free: Mapping[str, int] | None = None
    steps: tuple[str, ...] = ()
    advice: str = ""
    trouble: str = ""

    @property
    def fits(self) -> bool:
        return _fits(self.parts, self.free or {})

    def steps_of(self, engine: str) -> list[str]:
        """Return what was stepped down of `xtts` or `wenet`, as reasons."""
        return [f"{step}, to fit into memory" for step in self.steps if step.lower().startswith(engine)]

    def lines(self) -> list[str]:
        """Return the plan for people, a line for each place, each part and each step."""
        places = [
            f"memory on {place}: {_shown(_needed(self.parts, place))} needed, {_shown(free)} free"
            for place, free in (self.free or {}).items()
        ]
        steps = [f"memory: {step}, to fit" for step in self.steps]
        return [*places, *map(_line, self.parts), *steps]

    def require_fit(self) -> None:
        """Raise ConfigurationError, with what is needed, what is free and what to set, where it does not fit."""
        needs = [(place, _needed(self.parts, place), free) for place, free in (self.free or {}).items()]
        short = [
            f"{place} has {_shown(free)} free ({free} bytes), and {_shown(needed)} are needed ({needed} bytes)"
            for place, needed, free in needs
            if needed > free
        ]
        if short:
            even = f" even with {', '.join(self.steps)}" if self.steps else ""
            raise ConfigurationError(f"the models do not fit into memory{even}: {'; '.join(short)}; {self.advice}")


@dataclass(frozen=True)
class Lighter:
    """What may be tried, the first first: XTTS's weights, WeNet's, smaller batches, and WeNet on the CPU."""

    xtts_weights: tuple["WeightMode", ...] = ()
    wenet_weights: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    moves_wenet: bool = False

    def steps(self, first: "Choice") -> Iterator["Choice"]:
        """Yield `first` and what is tried after it, each lighter than the one before but for the batch at a move."""
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
    """Return the plan for what `settings` choose; sizes are read from the files, nothing is loaded.

    `device` and the `free` bytes at `cpu` and at the device's name are this machine's unless given. Without a model
    of WeNet or XTTS there is nothing to plan. Raises ConfigurationError where the device cannot be used, or not in the
    modes that are set.
    """
    if not _is_heavy(settings):
        return MemoryPlan(settings, settings.device)
    from mirrorchat.hardware.devices import free_bytes, gpu_trouble, usable_device
    from mirrorchat.startup.memory_parts import Choice, Demand
    from mirrorchat.synth import weight_mode
    from mirrorchat.xtts.gpt import check_mode

    place = device or usable_device(settings.device)
    demand = Demand.of(settings, place)
    mode = weight_mode(settings.xtts_weights, place)
    if demand.xtts is not None:
        check_mode(mode, place)
    first = Choice(mode, settings.xtts_batch, settings.wenet_weights, str(place))
    places = {each: free_bytes(each) for each in dict.fromkeys((str(place), "cpu"))} if free is None else free
    trouble = gpu_trouble() if settings.device == "auto" and place.type == "cpu" else ""
    return replace(fit(settings, demand, first, places), trouble=trouble)


def fit(settings: Settings, demand: "Demand", first: "Choice", free: Mapping[str, int]) -> MemoryPlan:
    """Return the plan with the first of the allowed steps that fits; with the last one, and advice, where none does."""
    default = Settings()
    named = frozenset(name for name in STEPS_OF_SETTING if getattr(settings, name) != getattr(default, name))
    chosen, fits = _first_fitting(demand, _lighter(demand, first, named), first, free)
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


def _lighter(demand: "Demand", first: "Choice", named: frozenset[str]) -> Lighter:
    """Return what may be stepped down where the settings in `named` are to be kept."""
    from mirrorchat.xtts.linear import WeightMode

    order = (WeightMode.FP32, WeightMode.BF16)
    if not demand.gpu:
        order = (WeightMode.FP32, WeightMode.FP16W, *((WeightMode.INT8,) if demand.native else ()))
    speaks = demand.xtts is not None
    xtts_weights = order[order.index(first.xtts_weights) + 1 :] if first.xtts_weights in order and speaks else ()
    wenet_weights = () if demand.wenet_is_light(first) else (demand.light_wenet,)
    return Lighter(
        xtts_weights if "xtts_weights" not in named else (),
        wenet_weights if "wenet_weights" not in named else (),
        tuple(range(demand.rows(first) - 1, 0, -1)) if "xtts_batch" not in named else (),
        demand.gpu and bool(demand.wenet) and not named & {"device", "wenet_weights"},
    )


def _first_fitting(
    demand: "Demand", lighter: Lighter, first: "Choice", free: Mapping[str, int]
) -> tuple["Choice", bool]:
    choice = first
    for choice in lighter.steps(first):
        if _fits(demand.parts(choice), free):
            return choice, True
    return choice, False


def _described(demand: "Demand", first: "Choice", chosen: "Choice") -> Iterator[str]:
    if chosen.xtts_weights != first.xtts_weights:
        yield f"XTTS's weights in {chosen.xtts_weights} instead of {first.xtts_weights}"
    if chosen.wenet_device != first.wenet_device:
        yield f"WeNet on the CPU instead of {first.wenet_device}"
    elif chosen.wenet_weights != first.wenet_weights:
        yield f"WeNet's weights in {chosen.wenet_weights}"
    if demand.rows(chosen) < demand.rows(first):
        yield f"XTTS's batch {demand.rows(chosen)} instead of {demand.rows(first)}"


def _advice(
    settings: Settings, demand: "Demand", first: "Choice", free: Mapping[str, int], named: frozenset[str]
) -> str:
    """Return what to set: what a person has set and what would do instead, or else what needs less memory."""
    kept = named - ({"device"} if settings.device not in ("cuda", "cuda:0") else set())
    chosen, fits = _first_fitting(demand, _lighter(demand, first, named - kept), first, free)
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


def _fits(parts: "tuple[Part, ...] | list[Part]", free: Mapping[str, int]) -> bool:
    return all(_needed(parts, place) <= there for place, there in free.items())


def _needed(parts: "tuple[Part, ...] | list[Part]", place: str) -> int:
    """Return the most bytes that the parts at `place` take at once.

    Memory that one needs while it loads is used again for what others need so, and for work. Engines on a GPU compute
    in turns (`DeviceLock`), those on the CPU at once.
    """
    there = [part.bytes for part in parts if part.place == place]
    together: Callable[[list[int]], int] = sum if place == "cpu" else (lambda sizes: max(sizes, default=0))
    loading = max((each.loading for each in there), default=0)
    return sum(each.kept for each in there) + max(loading, together([each.work for each in there]))


def _line(part: "Part") -> str:
    times = ((part.bytes.loading, "while it loads"), (part.bytes.work, "at work"))
    more = [f", {_shown(size)} more {when}" for size, when in times if size]
    note = f" ({part.note})" if part.note else ""
    return f"memory on {part.place}: {_shown(part.bytes.kept)} for {part.name}{''.join(more)}{note}"


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
