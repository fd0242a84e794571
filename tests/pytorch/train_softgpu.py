#!/usr/bin/env python3
"""Trains small models on the GPU and on the CPU from the same weights and data, and compares the losses.

Matrix products are cuBLAS's, convolutions cuDNN's, PyTorch's own operators those of ptx_operators.

Run it through `tests/pytorch/run`, or under `tide run` with a Python that has PyTorch. Exit status 1 when a loss
differs by more than the tolerance.
"""
import argparse
import copy
import sys
import time
import warnings

warnings.filterwarnings('ignore', module='torch.cuda')  # the wheel was built for no device of capability 13.0

import torch  # noqa: E402
from torch import nn  # noqa: E402

import ptx_operators  # noqa: E402

WORDS, LENGTH, WIDTH, HEADS = 50, 16, 32, 4


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inputs, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x, mask):
        count, length, _ = x.shape
        parts = self.inputs(self.before(x)).view(count, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        scores = parts[0] @ parts[1].transpose(-2, -1) / (WIDTH // HEADS) ** 0.5
        mixed = scores.masked_fill(mask, float('-inf')).softmax(-1) @ parts[2]
        x = x + self.output(mixed.transpose(1, 2).reshape(count, length, WIDTH))
        return x + self.narrow(nn.functional.gelu(self.wide(self.between(x))))


class Transformer(nn.Module):
    """Two layers that learn to continue sequences."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, words):
        length = words.shape[1]
        mask = torch.ones(length, length, device=words.device).triu(1).bool()
        x = self.words(words) + self.places(torch.arange(length, device=words.device))
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.last(x))

    @staticmethod
    def data():
        start = torch.randint(WORDS, (8, 1))
        sequence = (start + 3 * torch.arange(LENGTH + 1)) % WORDS
        return sequence[:, :-1].contiguous(), sequence[:, 1:].contiguous()

    @staticmethod
    def loss(output, target):
        return nn.functional.cross_entropy(output.reshape(-1, WORDS), target.reshape(-1))


class Convolution(nn.Module):
    """Tells which quarter of a picture is bright."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                                    nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                    nn.Linear(16 * 4 * 4, 4))

    def forward(self, pictures):
        return self.layers(pictures)

    @staticmethod
    def data():
        target = torch.randint(4, (16,))
        pictures = 0.3 * torch.randn(16, 1, 16, 16)
        for picture, quarter in zip(pictures, target.tolist()):
            picture[0, quarter // 2 * 8:quarter // 2 * 8 + 8, quarter % 2 * 8:quarter % 2 * 8 + 8] += 1
        return pictures, target

    @staticmethod
    def loss(output, target):
        return nn.functional.cross_entropy(output, target)


def train(model, batches, device):
    model = copy.deepcopy(model).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, foreach=False, fused=False)
    losses = []
    for inputs, target in batches:
        optimiser.zero_grad()
        loss = model.loss(model(inputs.to(device)), target.to(device))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def compare(kind, steps, tolerance):
    torch.manual_seed(1)
    model = kind()
    batches = [kind.data() for _ in range(steps)]
    expected = train(model, batches, 'cpu')
    began = time.monotonic()
    got = train(model, batches, 'cuda')
    seconds = time.monotonic() - began
    parameters = sum(p.numel() for p in model.parameters())
    print(f'{kind.__name__.lower()}: {parameters} parameters, {steps} steps, {seconds:.1f} s on the GPU')
    print(f'{"step":>4} {"GPU":>12} {"CPU":>12} {"difference":>12}')
    worst = 0.0
    for step, (ours, theirs) in enumerate(zip(got, expected)):
        worst = max(worst, abs(ours - theirs) / max(1.0, abs(theirs)))
        print(f'{step:4} {ours:12.7f} {theirs:12.7f} {ours - theirs:12.2e}')
    good = worst <= tolerance and got[-1] < got[0]
    print(f'largest difference {worst:.1e}, allowed {tolerance:.1e}; '
          f'loss from {got[0]:.4f} to {got[-1]:.4f}: {"ok" if good else "WRONG"}\n', flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--model', choices=['transformer', 'conv', 'all'], default='all')
    parser.add_argument('--tolerance', type=float, default=1e-4, help='of a loss, relative above 1')
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print('PyTorch sees no GPU: start this under `tide run -g 1`, or see tests/pytorch/run --help', file=sys.stderr)
        return 2
    print(f'PyTorch {torch.__version__} on {torch.cuda.get_device_name(0)}, '
          f'{len(ptx_operators.replaced())} operators as PTX')
    kinds = {'transformer': [Transformer], 'conv': [Convolution], 'all': [Transformer, Convolution]}[arguments.model]
    return 0 if all([compare(kind, arguments.steps, arguments.tolerance) for kind in kinds]) else 1


if __name__ == '__main__':
    sys.exit(main())
