"""Whisper base and Kokoro as they are published, tiny, on the hub, on GitHub and in wheels of a package index."""

import dataclasses
import hashlib
import io
import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

from mirrorchat.models.manifest import RELEASES, Part, Release, ReleasedFile
from support.hub_server import HubServer

NAMES = ("whisper-base", "kokoro")
_BYTES = random.Random(16)  # another process makes the same releases
CONTENTS: Mapping[str, bytes] = {
    "model.bin": _BYTES.randbytes(300_000),
    "tokenizer.json": b'{"tokens": []}',
    "vocabulary.txt": b"one\ntwo\n",
    "config.json": b"{}",
    "kokoro-v1.0.int8.onnx": _BYTES.randbytes(200_001),
    "voices-v1.0.bin": _BYTES.randbytes(50_000),
    "voices_ja.npz": _BYTES.randbytes(5_000),
}


@dataclass(frozen=True)
class Carrier:
    """A wheel that holds parts of released files, by their paths in it."""

    package: str
    version: str
    members: Mapping[str, bytes]

    def packed(self) -> bytes:
        """Return the wheel."""
        start = f"{self.package.replace('-', '_')}-{self.version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {self.package}\nVersion: {self.version}\n".encode()
        wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.members.items():
                archive.writestr(name, content)
            for name, content in (("METADATA", metadata), ("WHEEL", wheel), ("RECORD", b"")):
                archive.writestr(f"{start}/{name}", content)
        return packed.getvalue()


def tiny_releases() -> dict[str, Release]:
    """Return both releases with the sizes and checksums of CONTENTS, and of the wheels of `carriers`."""
    sizes = {carrier.package: len(carrier.packed()) for carrier in carriers()}
    return {name: _fitted(RELEASES[name], sizes) for name in NAMES}


def _fitted(release: Release, sizes: Mapping[str, int]) -> Release:
    return dataclasses.replace(release, files=tuple(_fitted_file(file, sizes) for file in release.files))


def _fitted_file(file: ReleasedFile, sizes: Mapping[str, int]) -> ReleasedFile:
    content = CONTENTS[file.name]
    return dataclasses.replace(
        file,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parts=tuple(_fitted_part(part, sizes) for part in file.parts),
        substitutes=tuple(_fitted_file(each, sizes) for each in file.substitutes),
    )


def _fitted_part(part: Part, sizes: Mapping[str, int]) -> Part:
    return dataclasses.replace(part, wheel=dataclasses.replace(part.wheel, size_bytes=sizes[part.wheel.package]))


def carriers(contents: Mapping[str, bytes] = CONTENTS) -> list[Carrier]:
    """Return the wheels that hold `contents`, as the manifest names them."""
    members: dict[tuple[str, str], dict[str, bytes]] = {}
    for release in (RELEASES[name] for name in NAMES):
        for file in (file for choices in release.choices for file in choices if file.parts):
            step = -(-len(contents[file.name]) // len(file.parts))
            for number, part in enumerate(file.parts):
                piece = contents[file.name][number * step : (number + 1) * step]
                members.setdefault((part.wheel.package, part.wheel.version), {})[part.member] = piece
    return [Carrier(package, version, held) for (package, version), held in members.items()]


def publish_everywhere(server: HubServer) -> None:
    """Publish both releases on the hub, on ModelScope and on GitHub, each file where the manifest says it is."""
    for release in (RELEASES[name] for name in NAMES):
        for place in (release.hugging_face, release.modelscope, release.github):
            for file in (file for file in release.files if place.has(file)):
                server.publish(place.name, file.name, CONTENTS[file.name])


def publish_wheels(server: HubServer, contents: Mapping[str, bytes] = CONTENTS) -> None:
    """Publish the wheels that hold `contents` in the package index."""
    for carrier in carriers(contents):
        server.publish_wheel(carrier.package, carrier.version, carrier.packed())


def wheel_name(package: str, version: str) -> str:
    """Return the file name of a wheel, by which faults name it."""
    return f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
