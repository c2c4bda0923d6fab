from memcalc.kernels import Scratch, embedding_backward_scratch, foreach_norm_scratch
from memcalc.units import MIB


def test_every_tensor_has_as_many_partial_norms_as_the_largest() -> None:
    assert foreach_norm_scratch([65536, 65537, 1]) == Scratch(before=(3 * 2 * 4,))
    assert foreach_norm_scratch([]) == Scratch()


def test_few_tokens_need_nothing_but_a_contiguous_gradient() -> None:
    assert embedding_backward_scratch(tokens=3072, rows=32000, width=64, dtype="bf16") == Scratch()
    copied = embedding_backward_scratch(tokens=3072, rows=32000, width=64, dtype="bf16", grad_copied=True)
    assert copied == Scratch(before=(3072 * 64 * 2,))


def test_many_tokens_are_summed_in_fp32_about_as_large_as_their_gradient() -> None:
    scratch = embedding_backward_scratch(tokens=8192, rows=128256, width=4096, dtype="bf16")
    largest = (8192 // 10 + 8192) * 4096 * 4
    assert scratch.after[-1] == largest
    assert sum(scratch.after) < largest + MIB
    assert scratch.before == (8192 * 8, 8192 * 8)


def test_a_small_vocabulary_has_few_runs() -> None:
    scratch = embedding_backward_scratch(tokens=100_000, rows=100, width=64, dtype="fp32")
    assert scratch.after[-1] == (10_000 + 100) * 64 * 4
