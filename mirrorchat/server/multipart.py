"""Forms: multipart/form-data only, within limits that each have their own message.

Werkzeug reads any other form whole and makes an object of each of its fields: 12 MB of them cost 18 s and 0.7 GB.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import IO

from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from mirrorchat.errors import InvalidRequest, UploadTooLarge

BOUNDARY_LIMIT_CHARS = 70  # of RFC 2046: finding one costs its length
FIELD_LIMIT_BYTES = 500_000  # of a field that is no file, and of the head of a part

_READ_BYTES = 65_536


class MultipartOnly(FormDataParser):
    """Reads multipart/form-data, with uploads in memory. It takes any other body for an empty form, unread."""

    def parse(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str] | None = None
    ) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        """Return `stream`, the fields and the files. Raises UploadTooLarge and InvalidRequest."""
        fields: MultiDict[str, str] = MultiDict()
        files: MultiDict[str, FileStorage] = MultiDict()
        if mimetype != "multipart/form-data":
            return stream, fields, files
        boundary = (options or {}).get("boundary", "")
        if not boundary or not boundary.isascii():
            raise InvalidRequest("the multipart form has no boundary in its Content-Type")
        if len(boundary) > BOUNDARY_LIMIT_CHARS:
            raise InvalidRequest(f"the boundary of the form has more than {BOUNDARY_LIMIT_CHARS} characters")
        for part, content in self._parts(stream, boundary.encode()):
            if isinstance(part, File):
                files.add(part.name, FileStorage(BytesIO(content), part.filename, part.name, headers=part.headers))
            else:
                fields.add(part.name, content.decode(errors="replace"))
        return stream, fields, files

    def _parts(self, stream: IO[bytes], boundary: bytes) -> Iterator[tuple[Field | File, bytes]]:
        part: Field | File | None = None
        content = bytearray()
        for event in self._events(stream, boundary):
            if isinstance(event, Field | File):
                part = event
            elif isinstance(event, Data) and part is not None:
                content += event.data
                if isinstance(part, Field) and len(content) > FIELD_LIMIT_BYTES:
                    raise _field_too_large()
                if not event.more_data:
                    yield part, bytes(content)
                    content.clear()

    def _events(self, stream: IO[bytes], boundary: bytes) -> Iterator[Event]:
        decoder = MultipartDecoder(boundary, FIELD_LIMIT_BYTES + _READ_BYTES, max_parts=self.max_form_parts)
        event: Event | None = None
        while not isinstance(event, Epilogue):
            data = stream.read(_READ_BYTES)
            try:
                decoder.receive_data(data or None)
            except RequestEntityTooLarge:
                raise _field_too_large() from None
            event = self._next(decoder)
            while not isinstance(event, NeedData | Epilogue):
                yield event
                event = self._next(decoder)

    def _next(self, decoder: MultipartDecoder) -> Event:
        try:
            return decoder.next_event()
        except RequestEntityTooLarge:
            raise UploadTooLarge(f"the form has more than {self.max_form_parts} parts") from None
        except (ValueError, AttributeError):  # the latter of a part without a line break behind its head
            raise InvalidRequest("the multipart form is broken or not complete") from None


def _field_too_large() -> UploadTooLarge:
    return UploadTooLarge(f"a field of the form is larger than {FIELD_LIMIT_BYTES} bytes; send recordings as files")
