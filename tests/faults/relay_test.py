#!/usr/bin/env python3
"""The relay does with frames what it is told: measured by what goes through it. Needs root, for network namespaces."""

import ctypes
import hashlib
import os
import socket
import statistics
import sys
import threading
import time
import unittest

from ground import CLIENT, SERVER, Ground, why_no_namespaces
from wire import Relay

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def socket_in(namespace, kind):
    """A socket belongs to the namespace in which it was made."""
    made = []

    def make():
        with open(f'/run/netns/{namespace}') as there:
            assert libc.setns(there.fileno(), CLONE_NEWNET) == 0
        made.append(socket.socket(socket.AF_INET, kind))
    thread = threading.Thread(target=make)  # a namespace is the thread's
    thread.start()
    thread.join()
    made[0].settimeout(20)
    return made[0]


class RelayTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ground = Ground()
        cls.ground.wire()

    @classmethod
    def tearDownClass(cls):
        cls.ground.__exit__()

    def setUp(self):
        self.near = socket_in(self.ground.client, socket.SOCK_DGRAM)
        self.far = socket_in(self.ground.server, socket.SOCK_DGRAM)
        self.near.bind((CLIENT, 5000))
        self.far.bind((SERVER, 5000))
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)

    def relay(self, **settings):
        relay = Relay(self.ground, seed=7, **settings)
        relay.__enter__()
        self.addCleanup(relay.__exit__)
        return relay

    def trip_ms(self):
        begin = time.monotonic()
        self.near.sendto(b'there', (SERVER, 5000))
        self.far.recvfrom(100)
        self.far.sendto(b'back', (CLIENT, 5000))
        self.near.recvfrom(100)
        return 1000 * (time.monotonic() - begin)

    def arrived(self, frames, size=100, pause_s=0.0005):
        """Their numbers, in the order in which they came."""
        self.far.settimeout(1)
        numbers = []

        def receive():
            try:
                while True:
                    numbers.append(int.from_bytes(self.far.recv(2000)[:4], 'little'))
            except socket.timeout:
                pass
        thread = threading.Thread(target=receive)
        thread.start()
        for number in range(frames):
            self.near.sendto(number.to_bytes(4, 'little') + bytes(size - 4), (SERVER, 5000))
            time.sleep(pause_s)
        thread.join()
        return numbers

    def test_as_it_is_it_changes_nothing(self):
        relay = self.relay()
        self.assertLess(statistics.median(self.trip_ms() for _ in range(9)), 20)
        self.assertEqual(self.arrived(500), list(range(500)))
        self.assertEqual(relay.stats()['there']['lost'], 0)

    def test_each_way_has_its_delay(self):
        relay = self.relay()
        relay.set('there', delay_ms=80)
        relay.set('back', delay_ms=40)
        times = [self.trip_ms() for _ in range(5)]
        self.assertGreaterEqual(min(times), 120)
        self.assertLess(min(times), 150)
        relay.set(delay_ms=0)
        self.assertLess(min(self.trip_ms() for _ in range(5)), 20)

    def test_a_share_is_lost(self):
        relay = self.relay()
        relay.set('there', loss=0.1)
        self.assertTrue(1700 <= len(self.arrived(2000)) <= 1900, relay.stats())

    def test_a_share_comes_twice(self):
        self.relay().set('there', duplicate=0.1)
        numbers = self.arrived(1000)
        self.assertEqual(sorted(set(numbers)), list(range(1000)))
        self.assertTrue(1050 <= len(numbers) <= 1150, len(numbers))

    def test_a_share_is_overtaken(self):
        self.relay().set('there', reorder=0.05, held_ms=5)
        numbers = self.arrived(1000)
        self.assertEqual(sorted(numbers), list(range(1000)))
        behind = sum(a > b for a, b in zip(numbers, numbers[1:]))
        self.assertTrue(20 <= behind <= 80, behind)

    def test_a_queue_is_full_at_some_time(self):
        relay = self.relay()
        relay.set('there', rate_kbit=1000, queue=10)
        numbers = self.arrived(100, size=1000, pause_s=0)
        self.assertTrue(10 <= len(numbers) <= 14, numbers)
        self.assertEqual(relay.stats()['there']['dropped'], 100 - len(numbers))

    def test_tcp_gets_through_at_the_rate_and_whole(self):
        relay = self.relay(delay_ms=20, loss=0.01, duplicate=0.02, reorder=0.02, rate_kbit=10_000)
        data = os.urandom(2 << 20)
        listener = socket_in(self.ground.server, socket.SOCK_STREAM)
        listener.bind((SERVER, 6000))
        listener.listen()
        sender = socket_in(self.ground.client, socket.SOCK_STREAM)
        begin = time.monotonic()

        def send():
            sender.connect((SERVER, 6000))
            sender.sendall(data)
            sender.close()
        thread = threading.Thread(target=send)
        thread.start()
        taken, _ = listener.accept()
        seen = hashlib.sha256()
        while piece := taken.recv(1 << 16):
            seen.update(piece)
        took = time.monotonic() - begin
        thread.join()
        taken.close()
        listener.close()
        self.assertEqual(seen.digest(), hashlib.sha256(data).digest())
        self.assertGreater(took, 8 * len(data) / 10e6)
        self.assertLess(took, 20)
        self.assertGreater(relay.stats()['there']['frames'], len(data) / 1500, 'frames have the size of a wire')

    def test_nothing_passes_a_cut(self):
        relay = self.relay()
        relay.set(cut=1)
        self.assertEqual(self.arrived(20), [])
        relay.set(cut=0)
        self.assertEqual(self.arrived(20), list(range(20)))

    def test_what_it_does_not_know_it_says(self):
        relay = self.relay()
        for words in ('delay=3', 'delay_ms=x', 'delay_ms=-1', 'loss', 'sideways loss=1'):
            self.assertTrue(relay.say(words).startswith('error'), words)

    def test_after_it_the_switch_is_there_again(self):
        with Relay(self.ground, delay_ms=50):
            self.assertGreaterEqual(self.trip_ms(), 100)
        self.assertLess(min(self.trip_ms() for _ in range(5)), 20)


if __name__ == '__main__':
    if reason := why_no_namespaces():
        print(f'relay_test: not here: {reason}')
        sys.exit(77)
    unittest.main()
