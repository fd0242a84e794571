"""The wire between the two RDMA devices of the virtual machine: what went over it, and how to make it bad."""

import contextlib
import glob
import re
import subprocess

from pool import wait_until

DEVICES = {'rxe0': 'veth0', 'rxe1': 'veth1'}  # RDMA device -> its network interface
WORKER, WORKER_ADDRESS, CLIENT = 'rxe0', '10.77.0.1', 'rxe1'
RDMA_MTU = 4096  # the most that one RDMA packet carries


def read(path):
    with open(path) as file:
        return int(file.read())


class Sent:
    """What each device has sent: RDMA packets, and bytes of whatever kind."""

    def __init__(self):
        self.packets = {device: read(f'/sys/class/infiniband/{device}/ports/1/hw_counters/sent_pkts')
                        for device in DEVICES}
        self.bytes = {device: read(f'/sys/class/net/{interface}/statistics/tx_bytes')
                      for device, interface in DEVICES.items()}

    def since(self, before):
        self.packets = {device: count - before.packets[device] for device, count in self.packets.items()}
        self.bytes = {device: count - before.bytes[device] for device, count in self.bytes.items()}
        return self

    def __str__(self):
        return ', '.join(f'{device} sent {self.packets[device]} packets, {self.bytes[device] / 1e6:.1f} MB'
                         for device in DEVICES)

    def must_have_carried(self, least):
        """Fails unless at least so many bytes left each device, as RDMA."""
        for device in DEVICES:
            assert self.packets[device] * RDMA_MTU >= least and self.bytes[device] >= least, \
                f'less than {least} bytes went over RDMA: {self}'


def gids(device):
    with contextlib.ExitStack() as files:
        names = sorted(glob.glob(f'/sys/class/infiniband/{device}/ports/1/gids/*'))
        return [files.enter_context(open(name)).read() for name in names[:8]]


def command(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def bad(*how):
    """Each packet suffers `how`, as netem has it, in both directions. Gives a function: how many were lost so far."""
    def lost():
        return sum(int(count) for interface in DEVICES.values()
                   for count in re.findall(r'dropped (\d+)', command('tc', '-s', 'qdisc', 'show', 'dev', interface)))
    for interface in DEVICES.values():
        command('tc', 'qdisc', 'add', 'dev', interface, 'root', 'netem', 'limit', '20000', *how)
    try:
        yield lost
    finally:
        for interface in DEVICES.values():
            command('tc', 'qdisc', 'del', 'dev', interface, 'root')


@contextlib.contextmanager
def cuttable():
    """Gives a function that cuts the wire; it is whole again at the end."""
    interface = DEVICES[WORKER]
    addresses = gids(WORKER)
    routes = command('ip', 'route', 'show', 'table', 'all', 'dev', interface).splitlines()
    neighbours = command('ip', 'neigh', 'show', 'dev', interface, 'nud', 'permanent').splitlines()
    try:
        yield lambda: command('ip', 'link', 'set', interface, 'down')
    finally:
        command('ip', 'link', 'set', interface, 'up')
        for line in neighbours:  # they went with the link, and so did the routes
            command('ip', 'neigh', 'replace', *line.replace('PERMANENT', 'nud permanent').split(), 'dev', interface)
        for line in routes:
            if not line.startswith(('local', 'fe80', 'multicast', 'anycast')):
                command('ip', 'route', 'replace', *line.replace('linkdown', '').split(), 'dev', interface)
        # Soft-RoCE that lost its link amid traffic hears nothing any more; a new one does.
        for device, interface in DEVICES.items():
            command('rdma', 'link', 'delete', device)
            command('rdma', 'link', 'add', device, 'type', 'rxe', 'netdev', interface)
        wait_until(lambda: gids(WORKER) == addresses, 'the device has its addresses again')
