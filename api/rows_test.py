#!/usr/bin/env python3
"""The rows of api/*.api against cuda.h, the resolver table against the rows, and the grammar's own errors."""

import argparse
import pathlib
import sys
import unittest

import draft
import generate
import rows as api_rows

HERE = pathlib.Path(__file__).parent
INCLUDE = '/usr/local/cuda/include'


def plain(text):
    """A parameter list without our words and without spelling differences."""
    params = [api_rows.parse_param(p, 'test') for p in api_rows.split_params(text)]
    return [(p.type, p.name) for p in params]


class RowsMatchCudaH(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rows = api_rows.read_all(HERE)
        cls.declared = draft.declarations(INCLUDE)
        cls.current = draft.current(INCLUDE)

    def test_every_function_of_cuda_h_has_a_row(self):
        self.assertEqual(sorted(self.current - {r.name for r in self.rows}), [])

    def test_all_450_functions_are_there(self):
        # 452 current declarations: cuCtxGetDevice and cuCtxSynchronize are current in two versions each.
        self.assertEqual(len(self.current), 452)
        self.assertLess(
            {'cuCtxGetDevice', 'cuCtxGetDevice_v2', 'cuCtxSynchronize', 'cuCtxSynchronize_v2'}, self.current
        )

    def test_every_row_is_declared_by_cuda_h_with_these_parameters(self):
        for row in self.rows:
            if row.travel == 'internal':
                continue
            self.assertIn(row.name, self.declared, row.place)
            self.assertEqual([(p.type, p.name) for p in row.params], plain(self.declared[row.name]), row.place)

    def test_every_served_row_can_be_resolved(self):
        symbols = {s for _, _, _, s in api_rows.read_symbols(HERE)}
        for row in self.rows:
            if row.travel not in ('internal', 'refuse'):
                self.assertIn(row.name, symbols | {'cuProfilerInitialize'}, row.place)

    def test_all_638_symbols_are_exported(self):
        self.assertEqual(len(generate.exported(api_rows.read_symbols(HERE))), 638)

    def test_numbers_of_our_own_commands_stay_below_100(self):
        for row in self.rows:
            self.assertEqual(row.number < 100, row.travel == 'internal', row.place)


class GrammarRefuses(unittest.TestCase):
    def refuses(self, line, message):
        with self.assertRaises(api_rows.Malformed) as caught:
            api_rows.parse_row(line, 'x.api:1')
        self.assertIn(message, str(caught.exception))

    def test_a_pointer_without_a_word(self):
        self.refuses('1 cuX(const void* p) async', "pointer 'p' does not say how it crosses the wire")

    def test_an_output_of_an_async_call(self):
        self.refuses('1 cuX(int* p out) async', "cannot have the output 'p'")

    def test_a_device_address_without_a_length(self):
        self.refuses('1 cuX(CUdeviceptr p) async', "device address 'p'")

    def test_unknown_words(self):
        self.refuses('1 cuX(int a) sometimes', 'unknown travel')
        self.refuses('1 cuX(int a) sync often', 'unknown word')


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--include', default=INCLUDE)
    INCLUDE = parser.parse_known_args()[0].include
    sys.argv = sys.argv[:1]
    unittest.main(verbosity=1)
