"""Makes the files of tests/attacks/torch and expected.tsv: what torch.save writes, and what a stranger might.

    python tests/attacks/make.py

Needs torch and numpy. The good files say `ok` in expected.tsv and the tensors' numbers; each of the others says which
code refuses it and a word of the message. Nothing here is dangerous to make; opening the others with
`torch.load(weights_only=False)` is.
"""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import torch

OUT = Path(__file__).parent / "torch"
EXPECTED = []


def case(name, data, code, word=""):
    (OUT / name).write_bytes(data)
    EXPECTED.append((name, code, word))


def saved(obj, **options):
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def archive(members, method=zipfile.ZIP_STORED, root="archive"):
    """A zip as Python writes it: no data descriptors, no padding."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as z:
        for name, data in members.items():
            z.writestr(f"{root}/{name}" if root else name, data)
    return buffer.getvalue()


def op_int(n):
    return b"K" + bytes([n]) if 0 <= n < 256 else b"J" + struct.pack("<i", n) if -(2**31) <= n < 2**31 else b"\x8a\x08" + struct.pack("<q", n)


def op_text(text):
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def op_tuple(items):
    return b"(" + b"".join(items) + b"t"


def op_storage(kind=b"ctorch\nFloatStorage\n", key="0", numel=6, more=b""):
    return op_tuple([op_text("storage"), kind, op_text(key), op_text("cpu"), op_int(numel), more]) + b"Q"


def op_tensor(storage, offset=0, shape=(2, 3), strides=(3, 1), hooks=b"ccollections\nOrderedDict\n)R"):
    args = op_tuple(
        [storage, op_int(offset), op_tuple(map(op_int, shape)), op_tuple(map(op_int, strides)), b"\x89", hooks]
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + args + b"R"


def op_dict(entries):
    return b"}(" + b"".join(op_text(k) + v for k, v in entries) + b"u"


def torch_file(body, data=None, **more):
    members = {"data.pkl": b"\x80\x02" + body + b".", "byteorder": b"little", "version": b"3\n"}
    members.update({f"data/{k}": v for k, v in (data if data is not None else {"0": struct.pack("<6f", *range(6))}).items()})
    members.update(more)
    return archive(members)


def patched(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def good():
    a = torch.arange(6.0).reshape(2, 3)
    state = OrderedDict(
        a=a,
        a_turned=a.t(),
        last_column=a[:, 2],
        half=a.half(),
        bf16=a.bfloat16(),
        double=a.double(),
        ints=torch.tensor([1, -2], dtype=torch.int64),
        short=torch.tensor([1, -2], dtype=torch.int16),
        flags=torch.tensor([True, False]),
        bytes=torch.tensor([7], dtype=torch.uint8),
        words=torch.tensor([1, 2**32 - 1], dtype=torch.uint32),
        scalar=torch.tensor(3.0),
        empty=torch.empty(0, 4),
        parameter=torch.nn.Parameter(a + 1),
    )
    case("zip.bin", saved(state), "ok")
    del state["words"]
    case("legacy.bin", saved(state, _use_new_zipfile_serialization=False), "ok")
    module = torch.nn.Linear(2, 2).state_dict()
    for t in module.values():
        t.fill_(0.5)
    case("module.bin", saved(module), "ok")
    case("protocol4.bin", saved({"a": a}, pickle_protocol=4), "ok")
    torch.serialization.set_crc32_options(False)
    case("no_checksums.bin", saved({"a": a}), "ok")
    torch.serialization.set_crc32_options(True)
    case("by_hand.bin", torch_file(op_dict([("a", op_tensor(op_storage()))])), "ok")


def pickles():
    """What the machine must not follow."""
    tensor = op_tensor(op_storage())

    def body(name, ops, code, word, data=None):
        case(name + ".bin", torch_file(ops, data), code, word)

    class Shell:
        def __reduce__(self):
            return os.system, ("touch /tmp/polygraft_was_here",)

    evil = pickle.dumps({"a": Shell()}, protocol=2)
    case("system.bin", archive({"data.pkl": evil}), "FORMAT_PICKLE_GLOBAL", "posix.system")
    case("system4.bin", archive({"data.pkl": pickle.dumps({"a": Shell()}, protocol=4)}), "FORMAT_PICKLE_GLOBAL", "posix.system")
    legacy = saved({"a": torch.zeros(1)}, _use_new_zipfile_serialization=False)
    case("system_legacy.bin", legacy[:15] + evil + legacy[15:], "FORMAT_PICKLE_GLOBAL", "posix.system")
    # Names from the advisories against scanners that keep a list of what is forbidden.
    for module, name in [
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch.jit.unsupported_tensor_ops", "execWrapper"),
        ("torch._inductor.codecache", "compile_file"),
        ("numpy.testing._private.utils", "runstring"),
        ("pydoc", "pipepager"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("pip", "main"),
        ("torch", "load"),
        ("torch", ""),
        ("torch.float32", ""),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "defaultdict"),
        ("torch", "ComplexFloatStorage"),
    ]:
        ops = f"c{module}\n{name}\n".encode() + b")R"
        body(f"global_{module}.{name}", op_dict([("a", ops)]), "FORMAT_PICKLE_GLOBAL", f"{module}.{name}")
    body("stack_global", op_text("os") + op_text("system") + b"\x93)R", "FORMAT_PICKLE_GLOBAL", "os.system")
    body("inst", b"(S'id'\nios\nsystem\n", "FORMAT_PICKLE_OP", "STRING")
    body("inst_bare", b"(ios\nsystem\n", "FORMAT_PICKLE_OP", "INST")
    body("newobj", b"ccollections\nOrderedDict\n)\x81", "FORMAT_PICKLE_OP", "NEWOBJ")
    body("extension", b"\x82\x01", "FORMAT_PICKLE_OP", "EXT1")
    body("persid", b"Pstorage\n", "FORMAT_PICKLE_OP", "PERSID")
    body("no_stop", b"}" * 3 + b"0", "FORMAT_PICKLE_OP", "POP")
    case("cut_pickle.bin", archive({"data.pkl": b"\x80\x02}"}), "FORMAT_PICKLE_OP", "STOP")
    case("two_pickles.bin", archive({"data.pkl": b"\x80\x02}.\x80\x02}."}), "FORMAT_ZIP", "follow")
    case("protocol0.bin", archive({"data.pkl": b"(dp0\n."}), "FORMAT_PICKLE_OP", "0x64")
    case("bare_pickle0.bin", pickle.dumps({"a": 1}, protocol=0), "FORMAT_LIMIT", "safetensors")
    case("bare_pickle.bin", pickle.dumps({"a": 1}, protocol=2), "UNSUPPORTED_FORMAT", "pickle")
    body("memo_2_31", b"}r\xff\xff\xff\x7f", "FORMAT_PICKLE_OP", "remembers")
    body("memo_empty", b"h\x05", "FORMAT_PICKLE_OP", "remembered")
    body("pop_empty", b"\x85", "FORMAT_PICKLE_OP", "stack")
    body("mark_missing", b"t", "FORMAT_PICKLE_OP", "mark")
    body("below_mark", b"](a", "FORMAT_PICKLE_OP", "stack")
    body("left_over", b"}}", "FORMAT_PICKLE_OP", "left")
    body("nested", b"]" * 20_000, "FORMAT_PICKLE_OP", "stack")
    body("marks", b"(" * 20_000, "FORMAT_PICKLE_OP", "marks")
    body("long_text", b"X\xff\xff\xff\xff", "FORMAT_PICKLE_OP", "ends before")
    body("long_frame", b"\x95" + b"\xff" * 8, "FORMAT_PICKLE_OP", "frame")
    body("long_number", b"\x8a\xff" + b"\0" * 255, "FORMAT_PICKLE_OP", "255 bytes")
    body("not_utf8", b"X\x01\0\0\0\xff", "FORMAT_PICKLE_OP", "UTF-8")
    body("self_list", b"]q\x00h\x00a", "FORMAT_HEADER", "dictionary", {})
    body("nested_dict", op_dict([("a", op_dict([("b", tensor)]))]), "FORMAT_HEADER", "is not a tensor")
    body("twice", op_dict([("a", tensor), ("a", tensor)]), "FORMAT_DUPLICATE", "a")
    body("number", op_dict([("a", tensor), ("n", op_int(1))]), "FORMAT_HEADER", "n")
    body("odd_dict", b"}(" + op_text("a") + b"u", "FORMAT_PICKLE_OP", "key")
    body("set_on_list", b"]" + op_text("a") + tensor + b"s", "FORMAT_PICKLE_OP", "dictionary")
    body("build_tensor", op_dict([("a", tensor + b"}b")]), "FORMAT_PICKLE_OP", "state")
    body("hooks", op_dict([("a", op_tensor(op_storage(), hooks=op_dict([("h", b"N")])))]), "FORMAT_PICKLE_OP", "arguments")
    body("call_text", op_text("os.system") + b")R", "FORMAT_PICKLE_OP", "global")
    body("no_storage", op_dict([("a", op_tensor(b"N"))]), "FORMAT_PICKLE_OP", "storage")

    for name, options in {
        "offset_past": dict(offset=1),
        "stride_past": dict(strides=(4, 1)),
        "shape_past": dict(shape=(3, 3)),
        "repeated": dict(shape=(100_000, 100_000), strides=(0, 0)),
        "huge": dict(shape=(2**31, 2**31, 2**31), strides=(1, 1, 1)),
        "dimensions": dict(shape=(1,) * 9, strides=(1,) * 9),
        "unlike": dict(shape=(2, 3), strides=(1,)),
        "huge_offset": dict(offset=2**62, shape=(1,), strides=(1,)),
    }.items():
        body(name, op_dict([("a", op_tensor(op_storage(), **options))]), "FORMAT_RANGE", "stor" if name != "unlike" and name != "dimensions" else "strides")
    body("negative_offset", op_dict([("a", op_tensor(op_storage(), offset=-1))]), "FORMAT_PICKLE_OP", "negative")
    body("negative_stride", op_dict([("a", op_tensor(op_storage(), strides=(-3, 1)))]), "FORMAT_PICKLE_OP", "negative")
    body("numel_lie", op_dict([("a", op_tensor(op_storage(numel=7)))]), "FORMAT_RANGE", "7 elements")
    body("numel_huge", op_dict([("a", op_tensor(op_storage(numel=2**62)))]), "FORMAT_RANGE", "elements")
    body("numel_negative", op_dict([("a", op_tensor(op_storage(numel=-1)))]), "FORMAT_PICKLE_OP", "-1")
    body("dtype_lie", op_dict([("a", op_tensor(op_storage(kind=b"ctorch\nDoubleStorage\n")))]), "FORMAT_RANGE", "F64")
    body("two_dtypes", op_dict([("a", tensor), ("b", op_tensor(op_storage(kind=b"ctorch\nIntStorage\n")))]), "FORMAT_PICKLE_OP", "twice")
    body("no_member", op_dict([("a", op_tensor(op_storage(key="1")))]), "FORMAT_ZIP", "missing")
    body("key_climbs", op_dict([("a", op_tensor(op_storage(key="../data.pkl")))]), "FORMAT_ZIP", "missing")
    body("unused_storage", op_dict([("a", tensor)]), "FORMAT_ZIP", "data/9", {"0": b"\0" * 24, "9": b"x"})
    body("storage_view", op_dict([("a", op_tensor(op_storage(more=op_tuple([op_text("v"), op_int(0), op_int(6)]))))]), "FORMAT_PICKLE_OP", "view")
    case("script.bin", torch_file(op_dict([("a", tensor)]), **{"code/x.py": b"pass"}), "FORMAT_ZIP", "code/x.py")
    case("big_endian.bin", torch_file(op_dict([("a", tensor)]), byteorder=b"big"), "FORMAT_ZIP", "endian")


def zips():
    """Archives that two readers could read in two ways."""
    body = torch_file(op_dict([("a", op_tensor(op_storage()))]))
    end = len(body) - 22
    directory = struct.unpack_from("<I", body, end + 16)[0]
    case("prefixed.bin", b"\0" * 16 + body, "FORMAT_HEADER", "safetensors")
    case("prefixed_zip.bin", b"PK\x03\x04" + body, "FORMAT_ZIP", "directory")
    case("trailing.bin", body + b"\0", "FORMAT_ZIP", "end record")
    case("two_ends.bin", body + body[end:], "FORMAT_ZIP", "directory")
    case("comment.bin", body[:-2] + b"\x04\0abcd", "FORMAT_ZIP", "end record")
    case("cut.bin", body[:-30], "FORMAT_ZIP", "end record")
    case("count.bin", patched(body, end + 8, b"\xff\x00\xff\x00"), "FORMAT_ZIP", "directory")
    case("split.bin", patched(body, end + 4, b"\x01"), "FORMAT_ZIP", "several files")
    case("encrypted.bin", patched(body, directory + 8, b"\x01"), "FORMAT_ZIP", "encrypted")
    case("method_lie.bin", patched(body, directory + 10, b"\x08"), "FORMAT_ZIP", "compressed")
    case("local_method.bin", patched(body, 8, b"\x08"), "FORMAT_ZIP", "disagrees")
    case("local_name.bin", patched(body, 30, b"A"), "FORMAT_ZIP", "disagrees")
    case("local_size.bin", patched(body, 18, b"\x01\0\0\0\x01\0\0\0"), "FORMAT_ZIP", "disagrees")
    case("size_lie.bin", patched(body, directory + 24, b"\xf0\xff\xff\x7f"), "FORMAT_ZIP", "stored as it is")
    case("sizes_lie.bin", patched(body, directory + 20, b"\xf0\xff\xff\x7f" * 2), "FORMAT_ZIP", "not in the file")
    case("zip64_lack.bin", patched(body, directory + 20, b"\xff" * 8), "FORMAT_ZIP", "64-bit")
    case("checksum.bin", patched(body, body.index(b"_rebuild_tensor"), b"-"), "FORMAT_ZIP", "checksum")
    case("no_entry.bin", archive({"data.pkl": b""}, root=""), "FORMAT_ZIP", "data.pkl")
    case("deep.bin", archive({"data.pkl": b"\x80\x02}."}, root="a/b"), "FORMAT_ZIP", "data.pkl")
    case("deflated.bin", archive({"data.pkl": b"\x80\x02}." + b"\0" * 1000}, zipfile.ZIP_DEFLATED), "FORMAT_ZIP", "compressed")
    case("other_zip.bin", archive({"readme.txt": b"hello"}), "FORMAT_ZIP", "data.pkl")
    for name, path in {"climbs": "archive/../data.pkl", "absolute": "/etc/passwd", "backslash": "archive\\data.pkl"}.items():
        members = archive({path: b"x", "archive/data.pkl": b"\x80\x02}."}, root="")
        case(name + ".bin", members, "FORMAT_ZIP", "name")

    def raw(entries, flags=0, gap=b""):
        """Entries as (name, data, offset of the header or None), laid out by hand."""
        out, rows = b"", b""
        for name, data, at in entries:
            name, crc = name.encode(), zlib.crc32(data)
            offset = len(out) if at is None else at
            sizes = struct.pack("<III", crc, len(data), len(data))
            if at is None:
                out += b"PK\x03\x04" + struct.pack("<HHHHH", 20, flags, 0, 0, 0x21) + sizes
                out += struct.pack("<HH", len(name), 0) + name + data + gap
            rows += b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, flags, 0, 0, 0x21) + sizes
            rows += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, offset) + name
        n = len(entries)
        return out + rows + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, n, n, len(rows), len(out), 0)

    pickle_ = ("archive/data.pkl", b"\x80\x02}.", None)
    case("raw.bin", raw([pickle_]), "ok")
    case("member_twice.bin", raw([pickle_, pickle_]), "FORMAT_ZIP", "twice")
    case("overlap.bin", raw([pickle_, ("archive/data.pkl", pickle_[1], 0)]), "FORMAT_ZIP", "")
    case("gap.bin", raw([pickle_, ("archive/version", b"3\n", None)], gap=b"PK hidden"), "FORMAT_ZIP", "hole")
    case("flags.bin", raw([pickle_], flags=1 << 6), "FORMAT_ZIP", "encrypted")
    case("descriptor.bin", raw([pickle_], flags=1 << 3), "FORMAT_ZIP", "descriptor")

    zip64 = saved({"a": torch.zeros(1)})
    end64 = zip64.rindex(b"PK\x06\x06")
    case("zip64_end.bin", patched(zip64, end64 + 48, b"\x00" * 8), "FORMAT_ZIP", "disagree")
    case("zip64_locator.bin", patched(zip64, zip64.rindex(b"PK\x06\x07") + 8, b"\xff" * 8), "FORMAT_ZIP", "locator")


def legacies():
    data = saved({"a": torch.arange(3.0)}, _use_new_zipfile_serialization=False)
    case("legacy_cut.bin", data[:-1], "FORMAT_RANGE", "elements")
    case("legacy_trailing.bin", data + b"\0", "FORMAT_RANGE", "follow")
    count = len(data) - 12 - 8
    case("legacy_count.bin", patched(data, count, struct.pack("<q", 2**62)), "FORMAT_RANGE", "elements")
    case("legacy_endian.bin", patched(data, data.index(b"little_endian") + 15, b"\x89"), "FORMAT_HEADER", "endian")
    keys = data.rindex(b"\x80\x02]")
    tail = data[count:]
    case("legacy_no_keys.bin", data[:keys] + b"\x80\x02]." + tail, "FORMAT_HEADER", "no numbers")
    case("legacy_short.bin", data[:15], "FORMAT_PICKLE_OP", "STOP")
    case("legacy_magic.bin", data[:12] + b"\0" + data[13:], "FORMAT_HEADER", "torch.save")
    case("html.bin", b"<!DOCTYPE html><html>not found</html>", "UNSUPPORTED_FORMAT", "web page")
    case("lfs.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "UNSUPPORTED_FORMAT", "LFS")
    case("empty.bin", b"", "FORMAT_HEADER", "0 bytes")
    case("tar.bin", b"sys_info\0" + b"\0" * 248 + b"ustar\0" + b"\0" * 249, "FORMAT_LIMIT", "not a safetensors file")


def main():
    OUT.mkdir(exist_ok=True)
    for old in OUT.glob("*.bin"):
        old.unlink()
    for group in (good, pickles, zips, legacies):
        group()
    lines = ["\t".join(row) for row in EXPECTED]
    (OUT.parent / "expected.tsv").write_text("\n".join(lines) + "\n")
    print(len(EXPECTED), "files")


if __name__ == "__main__":
    main()
