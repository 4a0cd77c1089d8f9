"""The numbers and calls that the package repeats are those of gangline.h."""

import ctypes
import re
import unittest

from gangline import _lib, errors, group, memory
from worlds import HERE

HEADER = (HERE.parent.parent / "libgangline" / "gangline.h").read_text()

C_TYPES = {
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "double": ctypes.c_double,
    "void *": ctypes.c_void_p,
    "char *": ctypes.c_char_p,
}
STRUCTURES = {"gangline_join_options": _lib.JoinOptions, "gangline_error": _lib.LastError, "gangline_checkpoints_options": _lib.CheckpointsOptions, "gangline_all_reduce_options": _lib.AllReduceOptions}


def c_type(text):
    """The ctypes type of a declaration without its name."""
    text = " ".join(text.replace("const", " ").replace("*", " * ").split()).replace("* *", "**")
    if text in C_TYPES:
        return C_TYPES[text]
    if text in STRUCTURES:
        return STRUCTURES[text]
    assert text.endswith("*"), text
    return ctypes.POINTER(c_type(text[:-1].strip()))


class Header(unittest.TestCase):
    def constants(self):
        return {name.lower(): int(n) for name, n in re.findall(r"\bGANGLINE_(\w+) = (\d+)", HEADER)}

    def test_numbers(self):
        c = self.constants()
        self.assertEqual({n: c[n] for n in memory.TYPES}, {n: v[0] for n, v in memory.TYPES.items()})
        self.assertEqual({n: c[n] for n in group.OPS}, group.OPS)
        self.assertEqual({n: c["wire_" + n] for n in group.WIRES}, group.WIRES)
        calls = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "barrier")
        self.assertEqual([c[n] for n in calls], [getattr(group, "_" + n.upper()) for n in calls])
        for number, error in errors.CODES.items():
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.__name__[: -len("Error")]).lower()
            self.assertEqual(c["panicked" if name == "panic" else name], number, name)
        self.assertEqual(sum(1 for n in c if n != "ok"), len(memory.TYPES) + len(group.OPS) + len(group.WIRES) + len(calls) + len(errors.CODES))
        self.assertEqual(int(re.search(r"#define GANGLINE_API_VERSION (\d+)", HEADER).group(1)), _lib.API_VERSION)

    def test_calls(self):
        declared = {}
        for name, takes in re.findall(r"(?m)^int32_t gangline_(\w+)\(([^;]*)\);", HEADER):
            takes = [] if takes == "void" else [re.sub(r"\w+$", "", p.strip()) for p in takes.split(",")]
            declared[name] = [c_type(t) for t in takes]
        del declared["api_version"]
        self.assertEqual(declared, _lib.CALLS)

    def test_structures(self):
        for name, structure in STRUCTURES.items():
            body = re.search(r"typedef struct " + name + r" \{(.*?)\} " + name, HEADER, re.S).group(1)
            fields = []
            for line in re.sub(r"/\*.*?\*/", "", body, flags=re.S).split(";"):
                if not line.strip():
                    continue
                first, *more = line.split(",")
                kind, field, size = re.match(r"\s*(.*?)(\w+)(?:\[(\d+)\])?$", first.strip()).groups()
                base = ctypes.c_char * int(size) if size else c_type(kind)
                fields += [(f.strip(), base) for f in [field, *more]]
            self.assertEqual(fields, structure._fields_, name)


if __name__ == "__main__":
    unittest.main()
