"""The signature language, and the door that follows from a signature."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from yaie.signature import Binding, Door, Param, Signature, parse

APPEND = parse(
    "k: float[T,Hk,D], v: float[T,Hk,Dv], k_cache!: float[P,S,Hk,D] contiguous, slots: int32[T] "
    "-> None"
)


def tensors(**changes: Any) -> dict[str, Any]:
    """Arguments that the door of APPEND admits, but for the changes."""
    good = {
        "k": torch.zeros(3, 8, 4),
        "v": torch.zeros(3, 8, 6),
        "k_cache": torch.zeros(2, 5, 8, 4),
        "slots": torch.zeros(3, dtype=torch.int32),
    }
    return {**good, **changes}


def admit(signature: Signature | str, op: str = "append_kv", **args: Any) -> Binding:
    parsed = parse(signature) if isinstance(signature, str) else signature
    return Door(op, parsed).admit(args)


def refused(kind: type[Exception], signature: Signature | str, **args: Any) -> str:
    with pytest.raises(kind) as caught:
        admit(signature, **args)
    return str(caught.value)


# The language --------------------------------------------------------------------------------


def test_a_signature_is_read_into_its_parts() -> None:
    read = parse(
        "q: float[T,Hq,D], cache!: float[P,S] contiguous, ptr: int32[B+1], pairs: int64[M,2], *, "
        "causal=True, window=(-1, -1), scale?: float=None, softcap=0.0 "
        "-> out: float[T,Hq], lse: float32[T]"
    )
    assert (
        Param("q", "float", ("T", "Hq", "D")),
        Param("cache", "float", ("P", "S"), mutated=True, contiguous=True),
        Param("ptr", "int32", ("B+1",)),
        Param("pairs", "int64", ("M", "2")),
    ) == read.params
    assert {"causal": True, "window": (-1, -1), "scale": None, "softcap": 0.0} == read.options
    types = {"causal": "bool", "window": "int[2]", "scale": "float?", "softcap": "float"}
    assert types == read.option_types
    assert (Param("out", "float", ("T", "Hq")), Param("lse", "float32", ("T",))) == read.results
    assert ("cache",) == read.mutated


def test_a_list_of_tensors_has_open_axes() -> None:
    (caches, _) = parse("caches!: list[any[P,...]], pairs: int32[M,2] -> None").params
    assert Param("caches", "any", ("P", "..."), mutated=True, many=True) == caches


def test_white_space_does_not_matter() -> None:
    spread = parse(
        "  a :  float[ T , D ]  ,\n b!: int32[T]   contiguous ->   None ".replace(" :", ":")
    )
    assert parse("a: float[T,D], b!: int32[T] contiguous -> None").params == spread.params


def test_an_op_without_options_or_results_has_none() -> None:
    read = parse("a: any[T] -> None")
    assert ({}, ()) == (read.options, read.results)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a: float[T]", "a: float[T]"),
        ("a float[T] -> None", "a float[T]"),
        ("a: float -> None", "a: float"),
        ("a: [T] -> None", "a: [T]"),
        ("a: float[T-1] -> None", "T-1"),
        ("a: float[2T] -> None", "2T"),
        ("a: float[T] strided -> None", "a: float[T] strided"),
        ("a: float[T], * , b -> None", "b"),
        ("a: float[T], *, b= -> None", "b="),
        ("a: float[T] -> out", "out"),
        ("a: list[any[P,...] -> None", "list[any[P,...]"),
        ("a: float[T]] -> None", "float[T]]"),
        ("a: any[...,P] -> None", "..."),
        ("a: floot[T] -> None", "floot"),
        ("a: float[T], a: float[T] -> None", "a"),
        ("a: float[T], *, b=1+ -> None", "b=1+"),
        ("a: float[T], *, b=None -> None", "b=None"),
        ("a: float[T], *, b=(1, 2.0) -> None", "b=(1, 2.0)"),
        ("a: float[T], *, b='c' -> None", "b='c'"),
        ("a: float[T], *, b?: str=None -> None", "b?: str=None"),
    ],
)
def test_what_does_not_parse_is_quoted(text: str, quoted: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert quoted in str(caught.value)


# What passes ---------------------------------------------------------------------------------


def test_the_binding_says_what_the_tensors_say() -> None:
    binding = admit(APPEND, **tensors())
    assert {"T": 3, "Hk": 8, "D": 4, "Dv": 6, "P": 2, "S": 5} == binding.axes
    assert (torch.float32, torch.device("cpu")) == (binding.dtype, binding.device)


def test_a_call_without_float_tensors_has_no_dtype() -> None:
    assert admit("a: int32[T] -> None", a=torch.zeros(2, dtype=torch.int32)).dtype is None


def test_an_axis_plus_one_binds_the_letter() -> None:
    binding = admit("ptr: int32[B+1] -> None", ptr=torch.zeros(4, dtype=torch.int32))
    assert {"B": 3} == binding.axes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_float_dtype_passes_if_all_are_alike(dtype: torch.dtype) -> None:
    args = {k: t.to(dtype) if k != "slots" else t for k, t in tensors().items()}
    assert dtype == admit(APPEND, **args).dtype


@pytest.mark.parametrize("empty", ["T", "Hk", "D", "P", "S"])
def test_empty_tensors_are_legal(empty: str) -> None:
    size = {"T": 3, "Hk": 8, "D": 4, "Dv": 6, "P": 2, "S": 5, empty: 0}
    args = {
        p.name: torch.zeros(
            [size[a] for a in p.axes], dtype=torch.int32 if p.dtype == "int32" else torch.float32
        )
        for p in APPEND.params
    }
    assert 0 == admit(APPEND, **args).axes[empty]


def test_an_empty_list_binds_nothing() -> None:
    binding = admit(
        "caches!: list[any[P,...]], pairs: int32[M,2] -> None",
        caches=[],
        pairs=torch.zeros(0, 2, dtype=torch.int32),
    )
    assert {"M": 0} == binding.axes


def test_layers_of_a_list_may_differ_in_dtype_and_in_the_open_axes() -> None:
    layers = [torch.zeros(3, 2), torch.zeros(3, 4, 5, dtype=torch.int8), torch.zeros(3)]
    assert {"P": 3} == admit("caches!: list[any[P,...]] -> None", caches=layers).axes


def test_inputs_may_be_strided_views_of_a_fused_projection() -> None:
    fused = torch.zeros(3, 24, 4)
    admit(APPEND, **tensors(k=fused[:, :8], v=torch.zeros(8, 3, 6).transpose(0, 1)))


def test_inputs_may_share_memory_with_each_other() -> None:
    fused = torch.zeros(3, 8, 4)
    admit("k: float[T,Hk,D], v: float[T,Hk,D] -> None", k=fused, v=fused)


def test_a_last_axis_of_one_may_have_any_stride() -> None:
    admit(APPEND, **tensors(v=torch.zeros(3, 8, 6)[..., :1].as_strided((3, 8, 1), (48, 6, 7))))


def test_neighbours_in_one_allocation_do_not_overlap() -> None:
    both = torch.zeros(2, 2, 5, 8, 4)
    signature = "a!: float[P,S,H,D] contiguous, b!: float[P,S,H,D] contiguous -> None"
    admit(signature, a=both[0], b=both[1])


# What does not -------------------------------------------------------------------------------


def test_axes_that_disagree_are_named_with_both_arguments() -> None:
    message = refused(ValueError, APPEND, **tensors(k_cache=torch.zeros(2, 5, 4, 4)))
    assert "append_kv: k_cache: Hk is 4, k: Hk is 8" == message


def test_a_wrong_rank_shows_the_axes() -> None:
    message = refused(ValueError, APPEND, **tensors(k=torch.zeros(3, 8)))
    assert "append_kv: k: rank is 2, must be 3 [T,Hk,D]" == message


def test_a_list_needs_at_least_the_named_axes() -> None:
    message = refused(ValueError, "c!: list[any[P,S,...]] -> None", c=[torch.zeros(3)])
    assert "append_kv: c[0]: rank is 1, must be 2 or more [P,S,...]" == message


def test_a_fixed_axis_has_its_size() -> None:
    message = refused(ValueError, "p: int32[M,2] -> None", p=torch.zeros(4, 3, dtype=torch.int32))
    assert "append_kv: p: an axis is 3, must be 2" == message


def test_an_axis_plus_one_disagrees_in_terms_of_the_letter() -> None:
    ints = {"kv_lens": torch.zeros(3, dtype=torch.int32), "ptr": torch.zeros(3, dtype=torch.int32)}
    message = refused(ValueError, "kv_lens: int32[B], ptr: int32[B+1] -> None", **ints)
    assert "append_kv: ptr: B is 2, kv_lens: B is 3" == message


def test_an_axis_plus_one_is_never_empty() -> None:
    ptr = torch.zeros(0, dtype=torch.int32)
    message = refused(ValueError, "ptr: int32[B+1] -> None", ptr=ptr)
    assert "append_kv: ptr: B+1 is 0, must be at least 1" == message


def test_a_layer_of_a_list_is_named_by_its_number() -> None:
    layers = [torch.zeros(3, 2), torch.zeros(4, 2)]
    message = refused(ValueError, "caches!: list[any[P,...]] -> None", caches=layers)
    assert "append_kv: caches[1]: P is 4, caches[0]: P is 3" == message


def test_a_last_stride_other_than_one_is_refused() -> None:
    message = refused(ValueError, APPEND, **tensors(v=torch.zeros(3, 8, 12)[..., ::2]))
    assert "append_kv: v: stride of Dv is 2, must be 1" == message


def test_indices_with_gaps_are_refused() -> None:
    slots = torch.zeros(6, dtype=torch.int32)[::2]
    message = refused(ValueError, APPEND, **tensors(slots=slots))
    assert "append_kv: slots: stride of T is 2, must be 1" == message


@pytest.mark.parametrize(
    "signature", ["c!: float[P,S,D] contiguous -> None", "c!: any[P,...] -> None"]
)
def test_what_must_be_contiguous_is_refused_with_its_strides(signature: str) -> None:
    message = refused(ValueError, signature, c=torch.zeros(2, 3, 8)[..., :4])
    assert "append_kv: c: strides are (24, 8, 1), must be contiguous" == message


def test_a_mutated_tensor_that_is_expanded_is_refused() -> None:
    c = torch.zeros(1, 3, 4).expand(2, 3, 4)
    assert "must be contiguous" in refused(ValueError, "c!: float[P,S,D] contiguous -> None", c=c)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.complex64, torch.bool])
def test_a_dtype_that_is_no_float_of_ours_is_a_type_error(dtype: torch.dtype) -> None:
    message = refused(TypeError, APPEND, **tensors(k=torch.zeros(3, 8, 4, dtype=dtype)))
    name = str(dtype).removeprefix("torch.")
    assert f"append_kv: k: dtype is {name}, must be one of float32, float16, bfloat16" == message


def test_two_float_dtypes_in_one_call_are_a_type_error() -> None:
    message = refused(TypeError, APPEND, **tensors(k_cache=torch.zeros(2, 5, 8, 4).half()))
    assert "append_kv: k_cache: dtype is float16, k: dtype is float32" in message


def test_indices_of_64_bits_are_a_type_error() -> None:
    message = refused(TypeError, APPEND, **tensors(slots=torch.zeros(3, dtype=torch.int64)))
    assert "append_kv: slots: dtype is int64, must be int32" == message


def test_devices_must_agree() -> None:
    message = refused(ValueError, APPEND, **tensors(v=torch.zeros(3, 8, 6, device="meta")))
    assert "append_kv: v: device is meta, k: device is cpu" == message


@pytest.mark.parametrize("value", [3, None, "k", [1.0], (torch.zeros(1),)])
def test_what_is_no_tensor_is_a_type_error(value: object) -> None:
    message = refused(TypeError, APPEND, **tensors(k=value))
    assert f"append_kv: k: expected a tensor, got {type(value).__name__}" == message


@pytest.mark.parametrize("value", [torch.zeros(2, 3), "caches", 3, None])
def test_what_is_no_list_of_tensors_is_a_type_error(value: object) -> None:
    message = refused(TypeError, "caches!: list[any[P,...]] -> None", caches=value)
    assert message.startswith("append_kv: caches")
    assert "expected a" in message


def test_an_item_of_a_list_that_is_no_tensor_is_named() -> None:
    layers = [torch.zeros(1), 3]
    message = refused(TypeError, "caches!: list[any[P,...]] -> None", caches=layers)
    assert "append_kv: caches[1]: expected a tensor, got int" == message


def test_a_sparse_tensor_is_refused_as_any_other_bad_input() -> None:
    sparse = torch.eye(3).to_sparse()
    with pytest.raises((ValueError, TypeError), match="append_kv: k"):
        admit("k: float[T,D] -> None", k=sparse)


def test_a_mutated_argument_that_overlaps_another_is_refused() -> None:
    cache = torch.zeros(2, 5, 8, 4)
    message = refused(ValueError, APPEND, **tensors(k_cache=cache, k=cache[0, :3]))
    assert "append_kv: k_cache: shares memory with k" == message


def test_two_mutated_arguments_that_overlap_by_one_element_are_refused() -> None:
    memory = torch.zeros(11)
    signature = "a!: any[N] -> None".replace("->", ", b!: any[M] ->")
    message = refused(ValueError, signature, a=memory[:6], b=memory[5:])
    assert "append_kv: b: shares memory with a" == message


def test_one_layer_twice_in_a_list_is_refused() -> None:
    layer = torch.zeros(3, 2)
    message = refused(ValueError, "caches!: list[any[P,...]] -> None", caches=[layer, layer])
    assert "append_kv: caches[1]: shares memory with caches[0]" == message


def test_the_first_fault_in_the_order_of_the_arguments_is_told() -> None:
    message = refused(
        ValueError, APPEND, **tensors(v=torch.zeros(4, 8, 6), k_cache=torch.zeros(2, 5, 9, 4))
    )
    assert "append_kv: v: T is 4, k: T is 3" == message
