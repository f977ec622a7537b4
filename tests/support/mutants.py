"""Mutants of files and requests: damage of the kinds that networks, disks and attackers do."""

import random

MOST_CHANGES = 8


def mutant(data: bytes, choose: random.Random) -> bytes:
    """Return `data` with 1 to MOST_CHANGES changes, most of them near the start, where the headers are."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, MOST_CHANGES)):
        if changed:
            _change(changed, choose)
    return bytes(changed)


def _change(data: bytearray, choose: random.Random) -> None:
    at = choose.randrange(choose.choice((min(len(data), 256), len(data))))
    length = choose.choice((1, 2, 4, 8, 64, 4096))
    piece = bytes(data[at : at + length])
    match choose.randrange(7):
        case 0:
            data[at] ^= 1 << choose.randrange(8)
        case 1:
            data[at : at + length] = choose.randbytes(len(piece))
        case 2:
            data[at : at + length] = choose.choice((b"\0", b"\xff", b"\x7f")) * len(piece)
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = piece * choose.randint(1, 4)
        case 5:
            to = choose.randrange(len(data))
            data[to : to + length] = piece
        case _:
            del data[at:]
