"""The relay (relay.cc) in place of the switch: a wire that is slow and bad as it is told to be."""

import json
import os
import subprocess

from ground import BUILD, expect, until

PROGRAM = os.path.join(BUILD, 'tests/faults/relay')


class Relay:
    """Between the ports of a ground's switch while this lasts. What is said with a direction ('there': from the client,
    'back') is of that one, else of both."""

    def __init__(self, ground, seed=1, **settings):
        self.ground, self.seed, self.settings, self.process = ground, seed, settings, None

    def __enter__(self):
        ground = self.ground
        for namespace in (ground.client, ground.server):
            subprocess.run(ground.inside(namespace, PROGRAM, '--plain', 'eth0'), check=True)
        words = ground.inside(ground.switch, PROGRAM, 'c0', 's0', '--seed', str(self.seed))
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        expect(self.process.stdout.readline() == 'ready\n', 'the relay is ready')
        self.set(**self.settings)
        for port in ('c0', 's0'):
            ground.ip('-n', ground.switch, 'link', 'set', port, 'nomaster')
        return self

    def say(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def set(self, direction='', **settings):
        """rate_kbit, queue, delay_ms, loss, duplicate, reorder, held_ms, cut."""
        words = [direction] + [f'{name}={value}' for name, value in settings.items()]
        expect(self.say(' '.join(words)) == 'ok', f'the relay takes {words}')

    def stats(self):
        return json.loads(self.say('stats'))

    def __exit__(self, *_):
        ground = self.ground
        for port in ('c0', 's0'):
            ground.ip('-n', ground.switch, 'link', 'set', port, 'master', 'br0')
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        # A port that a bridge takes in listens for a while before it forwards.
        ground.set_wire(True)
        subprocess.run(['bridge', '-n', ground.switch, 'link', 'set', 'dev', 'c0', 'state', 'forwarding'], check=True)
        until(lambda: ground.ip('-n', ground.switch, '-br', 'link', 'show', 'c0') != '', 'the switch is back')
