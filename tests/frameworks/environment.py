"""Python environments with packages from PyPI, made once and kept in the cache."""
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
STAMP = 'tidepool-requirements.txt'


class Unreachable(Exception):
    """PyPI is, or is too slow."""


def cache():
    return os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache'), 'tidepool')


def wanted(environment):
    with open(os.path.join(ROOT, environment.requirements), encoding='utf-8') as file:
        return file.read() + ''.join(f'{folder}: {what}\n' for folder, what in environment.apart.items())


def ready(environment, folder):
    try:
        with open(os.path.join(folder, STAMP), encoding='utf-8') as stamp:
            return stamp.read() == wanted(environment)
    except OSError:
        return not environment.apart and holds(folder, wanted(environment))


def holds(folder, requirements):
    """Whether another script (tests/pytorch/run) has installed just that there."""
    python = os.path.join(folder, 'bin', 'python')
    if not os.path.exists(python):
        return False
    listed = subprocess.run([python, '-m', 'pip', 'list', '--format=freeze'], capture_output=True, text=True).stdout
    lines = [re.sub(r'\[.*\]', '', line) for line in requirements.splitlines() if not line.startswith('#')]
    return set(lines) <= set(listed.split())


def pip(folder, *arguments, limit=None):
    command = [os.path.join(folder, 'bin', 'python'), '-m', 'pip', '--disable-pip-version-check', *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=limit).returncode == 0


def check_reach(folder):
    """One small package that needs no other."""
    try:
        found = pip(folder, '--timeout', '20', '--retries', '1', 'download', '--quiet', '--no-deps', '--no-cache-dir',
                    '--dest', os.path.join(folder, 'reach'), 'packaging==26.3', limit=90)
    except subprocess.TimeoutExpired:
        found = False
    if not found:
        raise Unreachable('pip finds no packaging==26.3: PyPI is not within reach')


def install(environment, folder, seconds):
    for module, package in (('venv', 'python3-venv'), ('ensurepip', 'python3-venv')):
        if subprocess.run([sys.executable, '-c', f'import {module}'], stderr=subprocess.DEVNULL).returncode != 0:
            raise RuntimeError(f'python3 has no {module} (Debian: apt install {package})')
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    free = shutil.disk_usage(os.path.dirname(folder)).free >> 30
    if free < environment.gigabytes:
        raise Unreachable(f'{free} GiB are free at {folder}, {environment.gigabytes} are needed while it is installed')
    print(f'frameworks: installing {environment.requirements} into {folder}', file=sys.stderr)
    subprocess.run([sys.executable, '-m', 'venv', '--clear', folder], check=True)
    check_reach(folder)
    end = time.monotonic() + seconds
    steps = [['-r', os.path.join(ROOT, environment.requirements)]]
    steps += [['--no-deps', '--target', os.path.join(folder, name), what] for name, what in environment.apart.items()]
    try:
        for step in steps:
            if not pip(folder, 'install', '--quiet', *step, limit=max(1, end - time.monotonic())):
                check_reach(folder)  # it may have gone meanwhile
                raise RuntimeError(f'pip could not install {step[-1]}')
    except subprocess.TimeoutExpired as late:
        raise Unreachable(f'pip needed more than {seconds:.0f} s for {environment.requirements}') from late
    with open(os.path.join(folder, STAMP), 'w', encoding='utf-8') as stamp:
        stamp.write(wanted(environment))


def prepare(name, environment, given, seconds):
    """The folder with the environment, and the seconds that it took to make. `given`: folders that a person chose, by
    name; such a one is taken as it is when there is a Python in it."""
    folder = given.get(name) or os.path.join(cache(), environment.folder)
    if name in given and os.path.exists(os.path.join(folder, 'bin', 'python')) or ready(environment, folder):
        return folder, 0.0
    began = time.monotonic()
    install(environment, folder, seconds)
    return folder, time.monotonic() - began
