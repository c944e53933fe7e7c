"""Reads a packed adapter (docs/format.md): read(path) gives the configurations, and the tensors of each file by name."""

import json
import math
import struct
import sys


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def read(path):
    data = open(path, "rb").read()
    (n,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + n])
    about = json.loads(header["__metadata__"]["polygraft"])
    if about["kind"] != "packed-adapter" or about["format"] != 1:
        raise ValueError("not a packed adapter of format 1")
    types = {"codes": "B", "stats": "f", "halves": "e", "floats": "f", "whole": "B"}
    left = {}
    for name, kind in types.items():
        start, end = header.get(name, {"data_offsets": [0, 0]})["data_offsets"]
        part = data[8 + n + start : 8 + n + end]
        left[name] = iter(struct.unpack(f"<{len(part) // struct.calcsize(kind)}{kind}", part))
    bits, group = about["bits"], about["group"]
    levels = [f32(x) for x in about.get("levels") or [f32(k / 127) for k in range(-128, 128)]]

    def unpacked(count, bits):
        packed = [next(left["codes"]) for _ in range((count * bits + 7) // 8)]
        return [packed[i * bits // 8] >> (i * bits % 8) & (1 << bits) - 1 for i in range(count)]

    def whole(count):
        values = [0]
        for _ in range(count):
            step, shift, byte = 0, 0, 128
            while byte & 128:
                byte = next(left["whole"])
                step, shift = step | (byte & 127) << shift, shift + 7
            values.append(values[-1] + (step >> 1 ^ -(step & 1)))
        return values[1:]

    def coded(rows, cols):
        codes = unpacked(rows * cols, bits)
        span = cols if group < 2 else group
        stats, values = None, []
        for i, code in enumerate(codes):
            if i % cols % span == 0 and (group or i == 0):
                stats = next(left["stats"]), next(left["stats"])
            values.append(f32(f32(levels[code] * stats[1]) + stats[0]))
        return values

    files = {}
    for file in sorted(about["tensors"], key=str.encode):
        tensors, name = [], b""
        for shared, rest, shape, place in about["tensors"][file]:
            name = name[:shared] + rest.encode()
            count = math.prod(shape)
            if place == 0:
                values = coded(count // shape[-1], shape[-1])
            elif place < 3:
                values = [next(left[("halves", "floats")[place - 1]]) for _ in range(count)]
            elif place < 5:
                values = whole(count) if place == 3 else unpacked(count, 1)
            else:
                values = tensors[place - 5][2]
            tensors.append((name.decode(), shape, values))
        files[file] = {name: (shape, values) for name, shape, values in tensors}
    if any(next(part, None) is not None for part in left.values()):
        raise ValueError("something is left over: the lengths lie")
    return about["texts"], files


if __name__ == "__main__":
    for file, tensors in read(sys.argv[1])[1].items():
        for name, (shape, values) in tensors.items():
            print(file, name, shape, f"{sum(values):.6g}")
