"""Triton's kernels on a virtual GPU; every result is compared with PyTorch's on the CPU."""
import sys

import torch
import triton
import triton.language as tl

from program import case, main

torch.manual_seed(1)


@triton.jit
def add(x, y, out, count, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(out + i, tl.load(x + i, mask=i < count) + tl.load(y + i, mask=i < count), mask=i < count)


@triton.jit
def softmax(x, out, count, SIZE: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, SIZE)
    value = tl.load(x + row * count + i, mask=i < count, other=-float('inf'))
    value = tl.exp(value - tl.max(value, 0))
    tl.store(out + row * count + i, value / tl.sum(value, 0), mask=i < count)


@triton.jit
def product(a, b, c, N, K, TILE: tl.constexpr):
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), dtype=tl.float32)
    for start in range(0, K, TILE):
        k = start + tl.arange(0, TILE)
        left = tl.load(a + row[:, None] * K + k[None, :])
        right = tl.load(b + k[:, None] * N + column[None, :])
        total += tl.dot(left, right, input_precision='ieee')
    tl.store(c + row[:, None] * N + column[None, :], total)


@triton.jit
def histogram(counts, values, SIZE: tl.constexpr):
    value = tl.load(values + tl.program_id(0) * SIZE + tl.arange(0, SIZE))
    tl.atomic_add(counts + value % 8, 1)


@triton.jit
def running_sum(x, out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(out + i, tl.cumsum(tl.load(x + i), 0))


@case
def vector_add():
    x, y = torch.rand(1000), torch.rand(1000)
    out = torch.empty(1000, device='cuda')
    add[(8,)](x.cuda(), y.cuda(), out, 1000, SIZE=128)
    assert torch.equal(out.cpu(), x + y)


@case
def softmax_of_rows():
    x = torch.randn(20, 100)
    out = torch.empty(20, 100, device='cuda')
    softmax[(20,)](x.cuda(), out, 100, SIZE=128)
    torch.testing.assert_close(out.cpu(), x.softmax(1))


def check_product(kind, tolerance):
    a, b = torch.randn(64, 96).to(kind), torch.randn(96, 32).to(kind)
    out = torch.empty(64, 32, device='cuda')
    product[(4, 2)](a.cuda(), b.cuda(), out, 32, 96, TILE=16)
    torch.testing.assert_close(out.cpu(), a.double().matmul(b.double()).float(), rtol=tolerance, atol=tolerance)


@case
def matrix_product():
    check_product(torch.float32, 1e-4)


@case
def matrix_product_on_tensor_cores():
    check_product(torch.float16, 1e-3)
    check_product(torch.bfloat16, 1e-3)


@case
def atomics():
    values = torch.randint(0, 1000, (1024,), dtype=torch.int32)
    counts = torch.zeros(8, dtype=torch.int32).cuda()
    histogram[(8,)](counts, values.cuda(), SIZE=128)
    assert torch.equal(counts.cpu().long(), torch.bincount(values % 8, minlength=8))


@case
def scan():
    x = torch.randint(0, 100, (256,), dtype=torch.int32)
    out = torch.empty(256, dtype=torch.int32, device='cuda')
    running_sum[(1,)](x.cuda(), out, SIZE=256)
    assert torch.equal(out.cpu().long(), x.long().cumsum(0))


@case
def machine_code():
    """With the ptxas that comes with Triton."""
    vector_add()


if __name__ == '__main__':
    sys.exit(main())
