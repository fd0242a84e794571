"""PyTorch's own operators as PTX.

The wheels of PyTorch on PyPI carry the kernels of its operators as machine code only, which nothing but a real GPU
runs. Importing this module replaces the operators that training needs, for CUDA tensors, by kernels that NVRTC compiles
to PTX at their first use, and by PyTorch's own decompositions into those. Everything else stays PyTorch's: dispatcher,
autograd, allocator, streams, modules, optimisers; and matrix products and convolutions stay with the libraries of
NVIDIA that it brings along, whose kernels have PTX.
"""
import functools
import math
import warnings

import torch
from torch._decomp import decomposition_table

import ptx_kernels
from ptx_kernels import elementwise, reduce

aten = torch.ops.aten
_library = torch.library.Library('aten', 'IMPL')
_replaced = []

EXACT = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def _define(name, function, **options):
    with warnings.catch_warnings():  # that an operator of PyTorch is replaced is what this is for
        warnings.simplefilter('ignore')
        _library.impl(name, function, 'CUDA', **options)
    _replaced.append(name)


def replaced():
    """Names of the operators, with overloads, that this module serves."""
    return sorted(_replaced)


def _arguments(overload, without=()):
    return [(a.name, str(a.type)) for a in overload._schema.arguments if a.name not in without]


def _serve(overload, function):
    """Registers `function` for an operator that returns new tensors, and for its forms that write into given ones."""
    packet = overload.overloadpacket
    name = packet.__name__
    key = f'{name}.{overload._overloadname}' if overload._overloadname != 'default' else name
    _define(key, function)
    outputs = len(overload._schema.returns)
    for other in packet.overloads():
        candidate = getattr(packet, other)
        out_names = [a.name for a in candidate._schema.arguments if a.is_out]
        if len(out_names) == outputs and _arguments(candidate, out_names) == _arguments(overload):
            _define(f'{name}.{other}', functools.partial(_into, function, out_names))
    in_place = getattr(getattr(aten, name + '_', None), overload._overloadname, None)
    if in_place is not None and _arguments(in_place) == _arguments(overload):
        suffix = f'.{overload._overloadname}' if overload._overloadname != 'default' else ''
        _define(f'{name}_{suffix}', lambda self, *a, **k: self.copy_(function(self, *a, **k)))


def _into(function, names, *arguments, **options):
    outs = [options.pop(name) for name in names]
    results = function(*arguments, **options)
    for out, result in zip(outs, results if isinstance(results, tuple) else (results,)):
        if out.shape != result.shape:
            out.resize_(result.shape)
        out.copy_(result)
    return outs[0] if len(outs) == 1 else tuple(outs)


# Copies and fills.

_copy_original = torch.library.get_kernel('aten::copy_', 'CUDA')


def _convert(out, tensor):
    wide = tensor.dtype if out.dtype != torch.bool else torch.float64
    return elementwise('a != 0' if out.dtype == torch.bool else 'a', out, [tensor], wide)


def _copy(keys, self, source, non_blocking=False):
    if self.numel() == 0:
        return self
    source = source.expand(self.shape)
    dense = self.is_contiguous() and source.is_contiguous() and self.dtype == source.dtype
    if dense or (self.is_cuda and source.is_cuda and self.device != source.device):
        return _copy_original.call_boxed(keys, self, source, non_blocking)
    if self.is_cuda and source.is_cuda:
        return _convert(self, source)
    if self.is_cuda:  # to the device dense, there to its place and type
        ready = source.contiguous()
        staged = torch.empty(ready.shape, dtype=ready.dtype, device=self.device)
        _copy_original.call_boxed(keys, staged, ready, non_blocking)
        return _convert(self, staged)
    return self.copy_(_copy_original.call_boxed(
        keys, torch.empty(self.shape, dtype=source.dtype), source.contiguous(), non_blocking))


_define('copy_', _copy, with_keyset=True)


def _fill(self, value):
    number = value.item() if isinstance(value, torch.Tensor) else value
    wide = torch.int64 if self.dtype in EXACT else torch.float64
    return elementwise('a', self, [number], wide)


_define('fill_.Scalar', _fill)
_define('fill_.Tensor', _fill)
_define('zero_', lambda self: _fill(self, 0))


def _arange(start, end, step=1, *, out):
    count = max(0, math.ceil((end - start) / step))
    if out.numel() != count:
        out.resize_(count)
    wide = torch.int64 if out.dtype in EXACT else torch.float64
    return elementwise('a + b * i', out, [start, step], wide)


def _eye(rows, columns, *, out):
    if out.shape != (rows, columns):
        out.resize_([rows, columns])
    return elementwise('i / a == i % a', out, [columns], torch.int64)


_define('arange.start_out', _arange)
_define('eye.m_out', _eye)
_define('eye.out', lambda rows, *, out: _eye(rows, rows, out=out))


# Element by element.

def _size(inputs):
    return torch.broadcast_shapes(*[t.shape for t in inputs if isinstance(t, torch.Tensor)])


def _device(inputs):
    return next(t.device for t in inputs if isinstance(t, torch.Tensor) and t.is_cuda)


def _promote(inputs):
    """The type that PyTorch computes in."""
    kinds = [torch.result_type(a, b) for a in inputs for b in inputs if isinstance(a, torch.Tensor)]
    return functools.reduce(torch.promote_types, kinds)


def _apply(expression, inputs, result=None, scalars=(), real=False):
    compute = _promote(inputs)
    if real and compute in EXACT:
        compute = torch.get_default_dtype()
    out = torch.empty(_size(inputs), dtype=result or compute, device=_device(inputs))
    return elementwise(expression, out, inputs, compute, scalars)


def _unary(name, expression, real=True):
    _serve(getattr(aten, name).default, lambda self: _apply(expression, [self], real=real))


for _name in ('exp', 'expm1', 'log', 'log2', 'log1p', 'sqrt', 'rsqrt', 'sin', 'cos', 'tan', 'tanh', 'erf', 'atan'):
    _unary(_name, f'{_name}(a)')
for _name in ('floor', 'ceil', 'trunc'):
    _unary(_name, f'{_name}(a)')
_unary('round', 'rint(a)')
_unary('sigmoid', '1 / (1 + exp(-a))')
_unary('reciprocal', '1 / a')
_unary('silu', 'a / (1 + exp(-a))')
_unary('neg', '-a', real=False)
_unary('abs', 'a < 0 ? -a : a', real=False)
_unary('sign', '(a > 0) - (a < 0)', real=False)
_unary('relu', 'a > 0 || a != a ? a : 0', real=False)
_unary('square', 'a * a', real=False)
_unary('bitwise_not', '~a', real=False)
for _name, _test in (('isnan', 'a != a'), ('logical_not', 'a == 0')):
    _serve(getattr(aten, _name).default, functools.partial(
        lambda test, self: _apply(test, [self], result=torch.bool), _test))


def _binary(name, expression, result=None, real=False):
    for overload in ('Tensor', 'Scalar'):
        if hasattr(getattr(aten, name), overload):
            _serve(getattr(getattr(aten, name), overload),
                   lambda self, other: _apply(expression, [self, other], result, real=real))


for _name, _sign in (('eq', '=='), ('ne', '!='), ('lt', '<'), ('le', '<='), ('gt', '>'), ('ge', '>=')):
    _binary(_name, f'a {_sign} b', torch.bool)
_binary('mul', 'a * b')
_binary('bitwise_and', 'a & b')
_binary('bitwise_or', 'a | b')
_binary('bitwise_xor', 'a ^ b')
_serve(aten.maximum.default, lambda a, b: _apply('a > b || a != a ? a : b', [a, b]))
_serve(aten.minimum.default, lambda a, b: _apply('a < b || a != a ? a : b', [a, b]))
_serve(aten.logical_and.default, lambda a, b: _apply('a != 0 && b != 0', [a, b], torch.bool))
_serve(aten.logical_or.default, lambda a, b: _apply('a != 0 || b != 0', [a, b], torch.bool))
_serve(aten.atan2.default, lambda a, b: _apply('atan2(a, b)', [a, b], real=True))


def _scaled(sign):
    def function(self, other, *, alpha=1):
        if alpha == 1:
            return _apply(f'a {sign} b', [self, other])
        exact = _promote([self, other]) in EXACT
        return _apply(f'a {sign} (decltype(a))s0 * b', [self, other], scalars=[alpha if exact else float(alpha)])
    return function


_serve(aten.add.Tensor, _scaled('+'))
_serve(aten.sub.Tensor, _scaled('-'))
_serve(aten.div.Tensor, lambda a, b: _apply('a / b', [a, b], real=True))


def _divide(self, other, *, rounding_mode=None):
    if rounding_mode is None:
        return _apply('a / b', [self, other], real=True)
    exact = _promote([self, other]) in EXACT
    floor = '(a % b != 0 && ((a < 0) != (b < 0))) ? a / b - 1 : a / b' if exact else 'floor(a / b)'
    cut = 'a / b' if exact else 'trunc(a / b)'
    return _apply(floor if rounding_mode == 'floor' else cut, [self, other])


_serve(aten.div.Tensor_mode, _divide)
_serve(aten.floor_divide.default, lambda a, b: _divide(a, b, rounding_mode='floor'))
_serve(aten.remainder.Tensor, lambda a, b: _apply(
    '(a % b != 0 && ((a % b < 0) != (b < 0))) ? a % b + b : a % b' if _promote([a, b]) in EXACT
    else 'a - b * floor(a / b)', [a, b]))


def _power(self, exponent):
    exact = _promote([self, exponent]) in EXACT
    return _apply('(decltype(a))llrint(pow((double)a, (double)b))' if exact else 'pow(a, b)', [self, exponent])


_serve(aten.pow.Tensor_Tensor, _power)
_serve(aten.pow.Tensor_Scalar, lambda self, exponent:
       _apply('a * a', [self]) if exponent == 2 else _power(self, exponent))
_serve(aten.pow.Scalar, _power)
_serve(aten.addcmul.default, lambda self, x, y, *, value=1: _apply('a + (decltype(a))s0 * b * c', [self, x, y],
                                                                 scalars=[float(value)]))
_serve(aten.addcdiv.default, lambda self, x, y, *, value=1: _apply('a + (decltype(a))s0 * b / c', [self, x, y],
                                                                 scalars=[float(value)]))
_serve(aten.lerp.Scalar, lambda self, end, weight: _apply('a + (decltype(a))s0 * (b - a)', [self, end],
                                                         scalars=[float(weight)]))


def _where(condition, self, other):
    compute = _promote([self, other])
    out = torch.empty(_size([condition, self, other]), dtype=compute, device=_device([condition, self, other]))
    # The condition is read as the type that is computed in: 0 and 1 in all of them.
    return elementwise('c != 0 ? a : b', out, [self, other, condition], compute)


_serve(aten.where.self, _where)
_serve(aten.masked_fill.Scalar, lambda self, mask, value: _where(mask, torch.tensor(value, dtype=self.dtype), self))
_serve(aten.masked_fill.Tensor, lambda self, mask, value: _where(mask, value.to(self.dtype), self))


def _clamp(self, low=None, high=None):
    if low is not None:
        self = _apply('a < b ? b : a', [self, low])
    return self if high is None else _apply('a > b ? b : a', [self, high])


_serve(aten.clamp.default, lambda self, min=None, max=None: _clamp(self, min, max))
_serve(aten.clamp_min.default, lambda self, low: _clamp(self, low))
_serve(aten.clamp_max.default, lambda self, high: _clamp(self, None, high))

_ERF = '0.5 * (1 + erf(a * 0.70710678118654752440))'
_TANH = '0.79788456080286535588 * (a + 0.044715 * a * a * a)'


def _gelu(self, *, approximate='none'):
    return _apply(f'0.5 * a * (1 + tanh({_TANH}))' if approximate == 'tanh' else f'a * {_ERF}', [self])


def _gelu_backward(grad, self, *, approximate='none'):
    if approximate == 'tanh':
        slope = (f'0.5 * (1 + tanh({_TANH})) + 0.5 * a * (1 - tanh({_TANH}) * tanh({_TANH})) * '
                 '0.79788456080286535588 * (1 + 3 * 0.044715 * a * a)')
    else:
        slope = f'{_ERF} + a * exp(-0.5 * a * a) * 0.39894228040143267794'
    return _apply(f'b * ({slope})', [self, grad])


_serve(aten.gelu.default, _gelu)
_serve(aten.gelu_backward.default, _gelu_backward)
_serve(aten.threshold_backward.default, lambda grad, self, threshold: _apply('b <= c ? 0 : a', [grad, self, threshold]))
_serve(aten.tanh_backward.default, lambda grad, output: _apply('a * (1 - b * b)', [grad, output]))
_serve(aten.sigmoid_backward.default, lambda grad, output: _apply('a * (1 - b) * b', [grad, output]))
_serve(aten.silu_backward.default, lambda grad, self: _apply(
    'a * (1 / (1 + exp(-b))) * (1 + b * (1 - 1 / (1 + exp(-b))))', [grad, self]))


def _triangle(keep):
    def function(self, diagonal=0):
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        rows, columns = self.shape[-2:]
        wide = torch.int64 if self.dtype in EXACT else self.dtype
        place = f'i % {columns} - i / {columns} % {rows}'
        return elementwise(f'{place} {keep} s0 ? a : 0', out, [self], wide, [diagonal])
    return function


_serve(aten.tril.default, _triangle('<='))
_serve(aten.triu.default, _triangle('>='))


# Reductions.

def _dims(self, dim):
    if dim is None or (isinstance(dim, (list, tuple)) and len(dim) == 0):
        return list(range(self.dim()))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return sorted({d % max(self.dim(), 1) for d in dims if self.dim() > 0})


def _reduced(self, dim, keepdim, dtype, combine, start, **how):
    dims = _dims(self, dim)
    out = torch.empty([n for d, n in enumerate(self.shape) if d not in dims], dtype=dtype, device=self.device)
    compute = how.pop('compute', dtype)
    reduce(combine, start, out, self, dims, compute, **how)
    for d in dims if keepdim else ():
        out = out.unsqueeze(d)
    return out


def _sum(self, dim=None, keepdim=False, *, dtype=None):
    kind = dtype or (torch.int64 if self.dtype in EXACT else self.dtype)
    return _reduced(self, dim, keepdim, kind, 'r + x', '0')


def _mean(self, dim=None, keepdim=False, *, dtype=None):
    count = math.prod(self.shape[d] for d in _dims(self, dim))
    return _reduced(self, dim, keepdim, dtype or self.dtype, 'r + x', '0', finish=f'r / {count}')


def _extreme(sign):
    def function(self, dim=(), keepdim=False):
        if self.dtype not in EXACT:
            limit = ('-' if sign == '>' else '') + '__int_as_float(0x7f800000)'
        elif self.dtype == torch.bool:
            limit = '0' if sign == '>' else '1'
        else:
            info = torch.iinfo(self.dtype)
            limit = f'{info.min + 1}ll - 1' if sign == '>' else f'{info.max}ll'
        return _reduced(self, dim, keepdim, self.dtype, f'x {sign} r || x != x ? x : r', limit)
    return function


_amax, _amin = _extreme('>'), _extreme('<')
_serve(aten.sum.dim_IntList, _sum)
_define('sum', lambda self, *, dtype=None: _sum(self, dtype=dtype))
_serve(aten.mean.dim, _mean)
_define('mean', lambda self, *, dtype=None: _mean(self, dtype=dtype))
_serve(aten.amax.default, _amax)
_serve(aten.amin.default, _amin)
_serve(aten.max.default, lambda self: _amax(self))
_serve(aten.min.default, lambda self: _amin(self))
_serve(aten.prod.dim_int, lambda self, dim, keepdim=False, *, dtype=None: _reduced(
    self, dim, keepdim, dtype or (torch.int64 if self.dtype in EXACT else self.dtype), 'r * x', '1'))


def _truth(combine, start):
    def function(self, dim=None, keepdim=False):
        return _reduced(self, dim, keepdim, torch.bool, combine, start, compute=torch.int32, value='a != 0')
    return function


for _op, _how in ((aten.any, _truth('r || x', '0')), (aten.all, _truth('r && x', '1'))):
    _serve(_op.default, functools.partial(lambda how, self: how(self), _how))
    _serve(_op.dim, _how)


def _position(extreme):
    """Of the first element that is the extreme one."""
    def function(self, dim=None, keepdim=False):
        flat = self.reshape(-1) if dim is None else self
        axis = 0 if dim is None else dim % max(flat.dim(), 1)
        best = extreme(flat, [axis], True)
        count = flat.shape[axis] if flat.dim() else 1
        places = torch.arange(count, device=self.device).view([-1 if d == axis else 1 for d in range(flat.dim())])
        found = torch.where(flat == best, places, torch.tensor(count))
        return _amin(found, [axis], keepdim and dim is not None)
    return function


_serve(aten.argmax.default, _position(_amax))
_serve(aten.argmin.default, _position(_amin))
_serve(aten.max.dim, lambda self, dim, keepdim=False: (_amax(self, [dim], keepdim),
                                                      _position(_amax)(self, dim, keepdim)))
_serve(aten.min.dim, lambda self, dim, keepdim=False: (_amin(self, [dim], keepdim),
                                                      _position(_amin)(self, dim, keepdim)))


def _var_mean(self, dim=None, *, correction=None, keepdim=False):
    count = math.prod(self.shape[d] for d in _dims(self, dim))
    mean = _mean(self, dim, True)
    off = self - mean
    variance = _sum(off * off, dim, keepdim) / max(count - (1 if correction is None else correction), 0)
    return variance, mean if keepdim else _mean(self, dim, False)


_serve(aten.var_mean.correction, _var_mean)
_serve(aten.var.correction, lambda self, dim=None, **how: _var_mean(self, dim, **how)[0])
_serve(aten.std.correction, lambda self, dim=None, **how: _var_mean(self, dim, **how)[0].sqrt())


def _norm(self, ord=2, dim=None, keepdim=False, *, dtype=None):
    self = self if dtype is None else self.to(dtype)
    if ord == math.inf:
        return _amax(self.abs(), dim, keepdim)
    if ord == 2:
        return _sum(self * self, dim, keepdim).sqrt()
    return _sum(self.abs() ** ord, dim, keepdim) ** (1 / ord)


_serve(aten.linalg_vector_norm.default, _norm)


def _softmax(self, dim, half_to_float):
    shifted = self - _amax(self, [dim], True)
    powers = shifted.exp()
    return powers / _sum(powers, [dim], True)


def _log_softmax(self, dim, half_to_float):
    shifted = self - _amax(self, [dim], True)
    return shifted - _sum(shifted.exp(), [dim], True).log()


_serve(aten._softmax.default, _softmax)
_serve(aten._log_softmax.default, _log_softmax)
_serve(aten._softmax_backward_data.default, lambda grad, output, dim, kind:
       output * (grad - _sum(grad * output, [dim], True)))
_serve(aten._log_softmax_backward_data.default, lambda grad, output, dim, kind:
       grad - output.exp() * _sum(grad, [dim], True))

# What PyTorch itself decomposes into the above.
for _op in (aten.native_layer_norm.default, aten.native_layer_norm_backward.default, aten.nll_loss_forward.default,
            aten.nll_loss_backward.default, aten.mse_loss.default, aten.mse_loss_backward.default,
            aten.native_dropout.default, aten.logsumexp.default, aten.leaky_relu.default, aten.softplus.default,
            aten.im2col.default, aten.col2im.default, aten.native_group_norm.default, aten.constant_pad_nd.default,
            aten.native_group_norm_backward.default, aten.native_batch_norm.default,
            aten.native_batch_norm_backward.default, aten.hardtanh.default):
    _serve(_op, decomposition_table[_op])

import ptx_indexing  # noqa: E402,F401  (registers the operators that read and write by index, and the random ones)
