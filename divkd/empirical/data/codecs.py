"""What Pillow drops of AVIF and JPEG 2000 without a word, read from the file's own headers."""

import re
import struct
from pathlib import Path

DEEP = "has more than 8 bits a channel; save it with 8"
OTHER = "has colours of another space than sRGB; save it as sRGB"


def dropped(kind: str, file: Path) -> str:
    """Why 8 bits of sRGB do not show `file`, of the format `kind`, with the mend; "" where they do.

    AVIF (ISO 23000-22): av1C says the bits, colr the primaries and the transfer function (ITU-T H.273; 2 is
    unspecified), clap a crop, which Pillow does not make. JPEG 2000 (ISO 15444-1): SIZ says bits, sign and subsampling
    of every component, colr the space (16 sRGB, 17 grey), pclr a palette.
    """
    content = file.read_bytes() if kind in ("AVIF", "JPEG2000") else b""
    if kind == "AVIF":
        if any(flags[0] & 0x40 for flags in re.findall(rb"av1C..(.)", content, re.S)):
            return DEEP
        spaces = [struct.unpack(">HH", found) for found in re.findall(rb"colrnclx(.{4})", content, re.S)]
        if any(primaries not in (1, 2) or transfer not in (2, 13) for primaries, transfer in spaces):
            return OTHER
        return "is cropped by its own header; save it cropped" if b"clap" in content else ""
    if kind == "JPEG2000":
        at = content.find(b"\xff\x4f\xff\x51")  # start of codestream, SIZ
        count = struct.unpack(">H", content[at + 40 : at + 42])[0] if at >= 0 else 0
        parts = content[at + 42 : at + 42 + 3 * count]
        boxes = content[: max(at, 0)]
        if any((bits & 0x7F) > 7 for bits in parts[::3]):
            return DEEP
        if any(space not in (b"\1\0\0\0\x10", b"\1\0\0\0\x11") for space in
               (how + named for how, named in re.findall(rb"colr(.)..(.{4})", boxes, re.S))):  # fmt: skip
            return OTHER
        if any(bits != 7 for bits in parts[::3]) or set(parts[1::3] + parts[2::3]) - {1} or b"pclr" in boxes:
            return "has fewer than 8 bits, signed, scaled or indexed channels; save it as RGB"
    return ""
