#!/usr/bin/env python3
"""Single operations of PyTorch on the GPU, compared with the CPU: a table, and exit status 1 when one differs.

Run it through `tests/pytorch/run`, or under `tide run` with a Python that has PyTorch.
"""
import argparse
import sys
import time
import warnings

warnings.filterwarnings('ignore', module='torch.cuda')  # the wheel was built for no device of capability 13.0

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import ptx_operators  # noqa: E402,F401

# name, function of tensors, shapes of random inputs (or tensors), allowed difference
X, Y = (6, 33), (6, 33)
CASES = {
    'elementwise': [
        ('a + b', lambda a, b: a + b, [X, Y], 0),
        ('a - 3 * b, broadcast', lambda a, b: torch.sub(a, b, alpha=3), [X, (33,)], 1e-6),
        ('a * b / (b * b + 1)', lambda a, b: a * b / (b * b + 1), [X, Y], 1e-6),
        ('transposed + 1', lambda a: a.t() + 1, [X], 0),
        ('exp, log, sqrt', lambda a: (a.exp() + 1).log().sqrt(), [X], 1e-6),
        ('sin, cos, tanh, erf', lambda a: a.sin() + a.cos() * a.tanh() + a.erf(), [X], 1e-6),
        ('sigmoid, silu, gelu, relu', lambda a: a.sigmoid() + F.silu(a) + F.gelu(a) + a.relu(), [X], 1e-6),
        ('pow, abs, sign, neg', lambda a: a.abs() ** 1.5 * a.sign() - (-a) ** 2, [X], 1e-6),
        ('where, comparisons', lambda a, b: torch.where(a > b, a, b * 2), [X, Y], 0),
        ('clamp, floor, round', lambda a: (4 * a).clamp(-2, 3).floor() + (3 * a).round(), [X], 0),
        ('integers: + * // % &', lambda a, b: (a * 7 + b) // 3 % 5 & 3,
         [torch.arange(40) - 20, torch.arange(40) * 3], 0),
        ('float64', lambda a: (a * 1.1).exp(), [torch.linspace(-3, 3, 50, dtype=torch.float64)], 1e-14),
        ('bfloat16', lambda a, b: a * b + a, [torch.arange(64).bfloat16() / 8, torch.arange(64).bfloat16() / 16], 0),
        ('float16', lambda a, b: a * b + a, [torch.arange(64).half() / 8, torch.arange(64).half() / 16], 0),
        ('conversions', lambda a: a.to(torch.int32).to(torch.float64).to(torch.bfloat16), [X], 0),
    ],
    'reductions': [
        ('sum, all', lambda a: a.sum(), [(40, 50)], 1e-5),
        ('sum, dimension', lambda a: a.sum(0) + a.sum(0, keepdim=True), [(40, 50)], 1e-5),
        ('mean, var, std', lambda a: a.mean(1) + a.var(1) + a.std(1), [(40, 50)], 1e-5),
        ('amax, amin', lambda a: a.amax(1) - a.amin(1), [(40, 50)], 0),
        ('max with places', lambda a: a.max(0).indices, [(40, 50)], 0),
        ('argmax, argmin', lambda a: a.argmax() + a.argmin(1), [(40, 50)], 0),
        ('norm', lambda a: a.norm() + a.norm(dim=0), [(40, 50)], 1e-5),
        ('any, all', lambda a: (a > 0.99).any(1) | (a > -2).all(1), [(40, 50)], 0),
        ('cumsum', lambda a: a.cumsum(1), [(8, 50)], 1e-5),
        ('softmax, log_softmax', lambda a: a.softmax(1) + a.log_softmax(0), [(12, 50)], 1e-6),
        ('logsumexp', lambda a: a.logsumexp(1), [(12, 50)], 1e-6),
    ],
    'indexing': [
        ('a[i]', lambda a, i: a[i], [(20, 5), torch.tensor([3, 0, -1, 3])], 0),
        ('a[:, i, j]', lambda a, i, j: a[:, i, j], [(3, 8, 9), torch.tensor([1, 7]), torch.tensor([8, 0])], 0),
        ('a[i] = b', lambda a, i, b: a.clone().index_put((i,), b), [(20, 5), torch.tensor([3, 0, 9]), (3, 5)], 0),
        ('a[i] += b', lambda a, i, b: a.index_put((i,), b, accumulate=True), [(20, 5), torch.tensor([3, 3, 9]), (3, 5)],
         1e-6),
        ('gather', lambda a, i: a.gather(1, i), [(4, 9), torch.tensor([[0, 8], [3, 3], [1, 2], [5, 4]])], 0),
        ('scatter, scatter_add', lambda a, i: a.scatter(1, i, 2.0).scatter_add(1, i, a[:, :2]),
         [(4, 9), torch.tensor([[0, 8], [3, 4], [1, 2], [5, 4]])], 1e-6),
        ('index_select', lambda a, i: a.index_select(1, i), [(4, 9), torch.tensor([2, 2, 8])], 0),
        ('cat, stack, split', lambda a, b: torch.cat([torch.stack([a, b]), a.unsqueeze(0)]).split(2)[0], [X, Y], 0),
        ('triu, tril, masked_fill', lambda a: a.triu(1) + a.tril(-2).masked_fill(a > 0.5, 7), [(9, 9)], 0),
        ('embedding', lambda w, i: F.embedding(i, w), [(30, 8), torch.tensor([[1, 29], [0, 1]])], 0),
    ],
    'sorting': [
        ('sort', lambda a: a.sort(-1).values, [(4, 100)], 0),
        ('sort, places, descending', lambda a: a.sort(0, descending=True).indices, [(50, 4)], 0),
        ('argsort', lambda a: a.argsort(), [(200,)], 0),
        ('topk', lambda a: a.topk(5).values, [(4, 60)], 0),
    ],
    'layers': [
        ('layer_norm', lambda a, w, b: F.layer_norm(a, (33,), w, b), [X, (33,), (33,)], 1e-5),
        ('group_norm', lambda a: F.group_norm(a, 2), [(2, 4, 5, 5)], 1e-5),
        ('batch_norm', lambda a: F.batch_norm(a, None, None, training=True), [(4, 3, 5, 5)], 1e-5),
        ('batch_norm (cuDNN)', lambda a, m, v, w, b: F.batch_norm(a, m, v.abs(), w, b, training=True),
         [(4, 3, 5, 5), (3,), (3,), (3,), (3,)], 1e-5),
        ('linear (cuBLASLt)', F.linear, [(7, 24), (10, 24), (10,)], 1e-5),
        ('matmul (cuBLAS)', torch.matmul, [(65, 40), (40, 33)], 1e-5),
        ('batched matmul (cuBLAS)', torch.matmul, [(3, 20, 16), (3, 16, 24)], 1e-5),
        ('matmul, bfloat16', lambda a, b: a.bfloat16() @ b.bfloat16(), [(32, 16), (16, 24)], 3e-2),
        ('conv2d (cuDNN)', lambda a, w, b: F.conv2d(a, w, b, padding=1), [(2, 3, 10, 10), (4, 3, 3, 3), (4,)], 1e-5),
        ('max_pool2d', lambda a: F.max_pool2d(a, 2), [(2, 3, 10, 10)], 0),
        ('cross_entropy', lambda a, t: F.cross_entropy(a, t), [(5, 7), torch.tensor([0, 6, 3, 3, 2])], 1e-6),
        ('mse_loss', F.mse_loss, [X, Y], 1e-6),
    ],
}


def gradients(function):
    """The function's own result gives way to the gradients of its inputs."""
    def run(*inputs):
        leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
        out = function(*leaves)
        (out * torch.arange(out.numel(), device=out.device, dtype=out.dtype).view(out.shape).cos()).sum().backward()
        return torch.cat([x.grad.reshape(-1) for x in leaves if x.is_floating_point()])
    return run


CASES['autograd'] = [(f'gradient of {name}', gradients(function), inputs, max(allowed, 2e-5))
                     for name, function, inputs, allowed in
                     [CASES['elementwise'][k] for k in (2, 4, 5, 6)] + [CASES['reductions'][k] for k in (1, 2, 9)]
                     + [CASES['indexing'][k] for k in (4, 9)]
                     + [case for case in CASES['layers'] if 'bfloat16' not in case[0]
                        and case[0] != 'batch_norm (cuDNN)']]


def check_random(print_row):
    """Moments, and that a seed gives the same numbers again."""
    torch.cuda.manual_seed(7)
    uniform, normal = torch.rand(20000, device='cuda'), torch.randn(20000, device='cuda')
    kept = F.dropout(torch.ones(20000, device='cuda'), 0.25).cpu()
    torch.cuda.manual_seed(7)
    again = torch.rand(20000, device='cuda')
    u, n = uniform.cpu().double(), normal.cpu().double()
    rows = [('rand: mean, variance', [u.mean() - 0.5, u.var() - 1 / 12], 0.01),
            ('randn: mean, variance', [n.mean(), n.var() - 1], 0.03),
            ('dropout: share that is kept', [(kept != 0).double().mean() - 0.75], 0.01),
            ('the same seed again', [(again.cpu() - uniform.cpu()).abs().max()], 0)]
    return [print_row(name, max(abs(float(v)) for v in values), allowed, 0.0) for name, values, allowed in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('groups', nargs='*', choices=[*CASES, 'random', []], help='default: all')
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print('PyTorch sees no GPU: start this under `tide run -g 1`, or see tests/pytorch/run --help', file=sys.stderr)
        return 2
    outcomes = []

    def print_row(name, difference, allowed, seconds):
        good = difference <= allowed
        print(f'{name:40} {difference:10.1e} {allowed:10.1e} {seconds:7.2f}  {"ok" if good else "WRONG"}', flush=True)
        return good

    for group, cases in CASES.items():
        if arguments.groups and group not in arguments.groups:
            continue
        print(f'{group:40} {"difference":>10} {"allowed":>10} {"seconds":>7}')
        for name, function, inputs, allowed in cases:
            torch.manual_seed(3)
            inputs = [x if isinstance(x, torch.Tensor) else torch.rand(x) * 2 - 1 for x in inputs]
            expected = function(*inputs)
            began = time.monotonic()
            try:
                got = function(*[x.cuda() for x in inputs]).cpu()
                same = got.shape == expected.shape and got.dtype == expected.dtype
                difference = float((got.double() - expected.double()).abs().max()) if same else float('inf')
            except (RuntimeError, NotImplementedError) as error:
                print(f'{name}: {str(error).splitlines()[0]}')
                difference = float('inf')
            outcomes.append(print_row(name, difference, allowed, time.monotonic() - began))
    if not arguments.groups or 'random' in arguments.groups:
        print('random')
        outcomes += check_random(print_row)
    print(f'{sum(outcomes)} of {len(outcomes)} right')
    return 0 if all(outcomes) else 1


if __name__ == '__main__':
    sys.exit(main())
