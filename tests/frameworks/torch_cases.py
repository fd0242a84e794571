"""PyTorch on a virtual GPU; every result is compared with the CPU's. Its operators come as PTX from tests/pytorch."""
import os
import subprocess
import sys
import warnings

warnings.filterwarnings('ignore', module='torch')

import torch  # noqa: E402

from program import case, main  # noqa: E402

torch.manual_seed(1)
PYTORCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'pytorch')


def with_operators():
    sys.path.insert(0, PYTORCH)
    import ptx_operators
    assert len(ptx_operators.replaced()) > 100, 'too few operators as PTX'


def program_of_pytorch(name, *arguments):
    done = subprocess.run([sys.executable, os.path.join(PYTORCH, name), *arguments])
    assert done.returncode == 0, f'{name}: status {done.returncode}'


@case
def training():
    program_of_pytorch('train_softgpu.py', '--steps', '5')


@case
def operators():
    program_of_pytorch('ops_softgpu.py')


@case
def own_operator():
    """An operator of PyTorch's wheel itself, which has machine code only."""
    (torch.ones(8).cuda() + 1).cpu()


@case
def cuda_graph():
    with_operators()
    x, w = torch.zeros(64, device='cuda'), torch.randn(64, 64)
    weights, side = w.cuda(), torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            y = (x @ weights).relu() + 1
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x @ weights).relu() + 1
    for _ in range(3):
        value = torch.randn(64)
        x.copy_(value)
        graph.replay()
        torch.testing.assert_close(y.cpu(), (value @ w).relu() + 1, rtol=1e-4, atol=1e-4)


@case
def pinned_memory():
    x = torch.randn(1 << 18).pin_memory()
    back = torch.empty_like(x).pin_memory()
    assert x.is_pinned() and back.is_pinned()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        device = torch.empty(1 << 18, device='cuda')
        device.copy_(x, non_blocking=True)
        back.copy_(device, non_blocking=True)
    stream.synchronize()
    assert torch.equal(back, x)


@case
def data_loader():
    """Two worker processes, forked after CUDA began, and a thread that pins what they bring."""
    torch.ones(1).cuda()
    data = torch.utils.data.TensorDataset(torch.arange(640.0).reshape(320, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=16, num_workers=2, pin_memory=True)
    got = []
    for _ in range(2):
        for (batch,) in loader:
            assert batch.is_pinned()
            got.append(batch.cuda(non_blocking=True).cpu())
    assert torch.equal(torch.cat(got), data.tensors[0].repeat(2, 1))


@case
def profiler():
    """With CUDA's activities asked for: CUPTI does not start, PyTorch says so, and the program goes on without them."""
    from torch.profiler import ProfilerActivity, profile
    x = torch.randn(16, 16)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        y = (x.cuda() @ x.cuda()).cpu()
    torch.testing.assert_close(y, x @ x, rtol=1e-4, atol=1e-4)
    events = profiled.key_averages()
    assert any(event.key == 'aten::mm' for event in events), 'no activity of the CPU'
    assert all(event.device_time_total == 0 for event in events), 'times of a GPU, from where?'


@case
def compiled():
    """torch.compile by Inductor: fused kernels by Triton, forward and backward. (Inductor clears memory with
    an operator of PyTorch's own while it measures variants.)"""
    with_operators()

    torch._inductor.config.deterministic = True  # the first variant and not the fastest

    def function(x, y):
        return torch.nn.functional.gelu(x * y + 1).softmax(-1).sum(0)

    x, y = torch.randn(40, 50), torch.randn(40, 50)
    u, v = x.cuda().requires_grad_(), y.cuda()
    got = torch.compile(function)(u, v)
    got.backward(torch.arange(50.0).cuda())
    x.requires_grad_()
    expected = function(x, y)
    expected.backward(torch.arange(50.0))
    torch.testing.assert_close(got.detach().cpu(), expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(u.grad.cpu(), x.grad, rtol=1e-3, atol=1e-4)


@case
def compiled_without_inductor():
    with_operators()

    def function(x, y):
        return torch.relu(x) * y + x @ y

    x, y = torch.randn(30, 30), torch.randn(30, 30)
    got = torch.compile(function, backend='aot_eager')(x.cuda(), y.cuda())
    torch.testing.assert_close(got.cpu(), function(x, y), rtol=1e-4, atol=1e-4)


if __name__ == '__main__':
    sys.exit(main())
