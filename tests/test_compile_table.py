"""The parsers of benchmarks/compile_table.py, on text that nvcc 13.0 printed."""

import struct

import pytest

from benchmarks import compile_table as ct

PTXAS_SM_80 = """\
ptxas info    : 0 bytes gmem, 64 bytes cmem[3]
ptxas info    : Compiling entry function '_Z6spillyIfLi96EEvPT_i' for 'sm_80'
ptxas info    : Function properties for _Z6spillyIfLi96EEvPT_i
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 58 registers, used 1 barriers, 512 bytes smem, 364 bytes cmem[0]
ptxas info    : Compile time = 46.201 ms
ptxas info    : Compiling entry function '_Z6calleePfi' for 'sm_80'
ptxas info    : Function properties for _Z6calleePfi
    40 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 40 bytes cumulative stack size, 364 bytes cmem[0]
ptxas info    : Compile time = 10.877 ms
ptxas info    : Function properties for _Z6helperPfi
    0 bytes stack frame, 32 bytes spill stores, 36 bytes spill loads
"""  # noqa: E501
PTXAS_SM_100 = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z6spillyIfLi96EEvPT_i' for 'sm_100'
ptxas info    : Function properties for _Z6spillyIfLi96EEvPT_i
    744 bytes stack frame, 1280 bytes spill stores, 940 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 744 bytes cumulative stack size, 512 bytes smem
ptxas info    : Compile time = 45.254 ms
"""


def test_entry_functions_have_registers_and_shared_memory() -> None:
    spilly, callee, _ = ct.parse_ptxas(PTXAS_SM_80)
    assert ct.Usage("_Z6spillyIfLi96EEvPT_i", 58, 0, 0, 0, shared=512) == spilly
    assert ct.Usage("_Z6calleePfi", 64, 40, 12, 4) == callee


def test_a_function_that_was_not_inlined_shows_its_own_spills() -> None:
    assert ct.Usage("_Z6helperPfi", None, 0, 32, 36) == ct.parse_ptxas(PTXAS_SM_80)[2]


def test_shared_memory_is_found_behind_the_stack_size() -> None:
    assert [ct.Usage("_Z6spillyIfLi96EEvPT_i", 32, 744, 1280, 940, shared=512)] == ct.parse_ptxas(
        PTXAS_SM_100
    )


@pytest.mark.parametrize(
    ("demangled", "name"),
    [
        ("void spilly<float, 96>(float*, int)", "spilly<float, 96>"),
        ("helper(float*, int)", "helper"),
        ("void yaie::(anonymous namespace)::k<__half, 8, false>(__half*)", "k<__half, 8, false>"),
        ("void k<(int)4, (bool)1, ns::T<int> >(int)", "k<4, 1, ns::T<int> >"),
        ("void k<float>(void (*)(int), float)", "k<float>"),
    ],
)
def test_names_lose_return_type_and_parameters(demangled: str, name: str) -> None:
    assert name == ct.short_name(demangled)


def test_section_sizes_of_an_elf_file() -> None:
    names = b"\0.shstrtab\0.nv.constant0.k\0"
    entries = [(0, 0, 0), (1, 64, len(names)), (11, 0, 540)]  # name, offset, size
    table = b"".join(
        struct.pack("<IIQQQQ24x", name, 0, 0, 0, offset, size) for name, offset, size in entries
    )
    header = struct.pack("<40xQ10xHHH", 64 + len(names), 64, len(entries), 1)
    sizes = ct.section_sizes(header + names + table)
    assert 540 == sizes[".nv.constant0.k"]


def usage(kernel: str = "k", registers: int = 32, stack: int = 0) -> ct.Usage:
    return ct.Usage(kernel, registers, stack, 0, 0)


def test_local_memory_fails_every_variant_but_naive() -> None:
    spilled = {"80": usage(), "100": usage(stack=8)}
    assert ct.Row("op", "split_kv", "k", spilled).fails
    assert not ct.Row("op", "naive", "k", spilled).fails
    assert not ct.Row("op", "split_kv", "k", {"80": usage()}).fails


def test_a_cell_is_one_figure_where_architectures_agree() -> None:
    row = {"80": usage(registers=32), "90a": usage(registers=40)}
    assert "32/40" == ct.cell(row.values(), "registers")
    assert "0" == ct.cell(row.values(), "stack")


def test_the_key_of_a_compilation_follows_its_headers(tmp_path) -> None:
    source, header, other = (tmp_path / name for name in ("k.cu", "k.cuh", "unrelated.cuh"))
    source.write_text('#include "k.cuh"\n#include <cstdint>\n')
    for path in (header, other):
        path.write_text("// one\n")
    first = ct.content_key(source, ["80"])
    other.write_text("// two\n")
    assert first == ct.content_key(source, ["80"])
    header.write_text("// two\n")
    assert first != ct.content_key(source, ["80"])
