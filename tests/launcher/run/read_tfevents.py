"""Reads TensorBoard event files without TensorFlow and prints their events as JSON lines; fails on a wrong checksum.

Written from the format's description (TFRecord framing, CRC-32C with mask, protobuf wire format) and not from the
writer, so that a mistake of the writer shows here.
"""
import json
import pathlib
import struct
import sys

POLYNOMIAL = 0x1EDC6F41  # Castagnoli, in its normal (not reflected) form


def crc32c(data):
    def reflected(value, bits):
        return int(format(value, f"0{bits}b")[::-1], 2)

    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= reflected(byte, 8) << 24
        for _ in range(8):
            crc = ((crc << 1) ^ POLYNOMIAL if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return reflected(crc, 32) ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        length, length_crc = struct.unpack_from("<QI", data)
        assert masked(data[:8]) == length_crc, "checksum of a length"
        body, (body_crc,) = data[12:12 + length], struct.unpack_from("<I", data, 12 + length)
        assert len(body) == length and masked(body) == body_crc, "checksum of a record"
        yield body
        data = data[16 + length:]


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def message(data):
    """{field number: [value]}; numbers for wire types 0, 1 (double) and 5 (float), bytes for 2."""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            size, code = {1: (8, "<d"), 5: (4, "<f")}[kind]
            (value,), at = struct.unpack_from(code, data, at), at + size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def event(body):
    fields = message(body)
    out = {"wall_time": fields[1][0], "step": fields[2][0]}
    if 3 in fields:
        out["file_version"] = fields[3][0].decode()
    if 5 in fields:
        values = (message(value) for value in message(fields[5][0])[1])
        out["scalars"] = {value[1][0].decode(): value[2][0] for value in values}
    if 7 in fields:
        out["session_status"] = message(fields[7][0])[1][0]
    return out


for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    for record in records(path.read_bytes()):
        print(json.dumps({"file": path.name, **event(record)}))
