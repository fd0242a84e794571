"""What llm.c's GPT-2 trainers read: a small random model and random tokens, made here; and the check of the GPU
program's losses against those of the plain C program with the same inputs."""

import array
import os
import random
import re
import shutil
import struct
import subprocess

LAYERS, HEADS, CHANNELS, CONTEXT, VOCABULARY, PADDED = 2, 4, 128, 64, 500, 512
BATCH, LENGTH, STEPS, VALIDATION = 4, 64, 10, 5
DATA = os.path.join('dev', 'data', 'tinyshakespeare')
TOLERANCE = 2e-4


def prepare(root, folder):
    random.seed(7)
    os.makedirs(os.path.join(folder, DATA), exist_ok=True)
    write_model(os.path.join(folder, 'gpt2_124M.bin'))
    write_tokenizer(os.path.join(folder, 'gpt2_tokenizer.bin'))
    write_tokens(os.path.join(folder, DATA, 'tiny_shakespeare_train.bin'), BATCH * LENGTH * STEPS + 1)
    write_tokens(os.path.join(folder, DATA, 'tiny_shakespeare_val.bin'), BATCH * LENGTH * VALIDATION + 1)
    compiler = shutil.which('gcc')
    if compiler is None:
        return 'no gcc'
    built = subprocess.run([compiler, '-O3', '-march=native', '-fopenmp', '-DOMP', os.path.join(root, 'train_gpt2.c'),
                            '-lm', '-o', os.path.join(folder, 'reference')], capture_output=True, text=True)
    if built.returncode != 0:
        return built.stderr
    with open(os.path.join(folder, 'reference.out'), 'w') as out:
        done = subprocess.run(['./reference'], cwd=folder, stdout=out, stderr=subprocess.PIPE, timeout=300,
                              env=dict(os.environ, OMP_NUM_THREADS='2'))
    return '' if done.returncode == 0 else f'the C program ended with status {done.returncode}'


def header(*numbers):
    return struct.pack('<256i', *numbers, *[0] * (256 - len(numbers)))


def write_model(path):
    c, layers = CHANNELS, LAYERS
    with open(path, 'wb') as file:
        file.write(header(20240326, 3, CONTEXT, VOCABULARY, layers, HEADS, c, PADDED))

        def normal(count, scale=0.02):
            array.array('f', (random.gauss(0, scale) for _ in range(count))).tofile(file)

        def constant(count, value):
            array.array('f', [value] * count).tofile(file)

        normal(VOCABULARY * c)
        constant((PADDED - VOCABULARY) * c, 0)
        normal(CONTEXT * c)
        for weights, biases in ((0, 0), (3 * c * c, 3 * c), (c * c, c), (0, 0), (4 * c * c, 4 * c), (4 * c * c, c)):
            if weights:
                normal(layers * weights)
                constant(layers * biases, 0)
            else:  # a layer norm
                constant(layers * c, 1)
                constant(layers * c, 0)
        constant(c, 1)
        constant(c, 0)


def write_tokenizer(path):
    with open(path, 'wb') as file:
        file.write(header(20240328, 2, VOCABULARY, 0))
        for token in range(VOCABULARY):
            text = f'<{token}>'.encode()
            file.write(bytes([len(text)]) + text)


def write_tokens(path, count):
    # Zipf-like, so that there is something to learn.
    weights = [1 / (i + 1) for i in range(VOCABULARY)]
    with open(path, 'wb') as file:
        file.write(header(20240520, 1, count))
        array.array('H', random.choices(range(VOCABULARY), weights, k=count)).tofile(file)


def losses(text):
    return [float(x) for x in re.findall(r'train loss ([\d.]+)', text)]


def judge(folder, output):
    with open(os.path.join(folder, 'reference.out')) as file:
        expected = losses(file.read())[:STEPS]
    got = losses(output)
    if len(got) != STEPS or len(expected) != STEPS:
        return f'{len(got)} losses, {len(expected)} of the C program, {STEPS} expected'
    worst = max(abs(a - b) for a, b in zip(got, expected))
    if not worst <= TOLERANCE:
        return f'a loss differs by {worst:g} from the C program'
    if not got[-1] < got[0]:
        return f'the loss did not fall: {got}'
    return ''
