"""Operators that read or write by index, sorting, pooling and random numbers, as PTX. Imported by ptx_operators."""
import math

import torch

from ptx_kernels import TYPES, launch, shape_of, strides_of, THREADS
from ptx_operators import EXACT, _define, _serve, aten

LOOP = '''const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < shape.count; i += step)'''


def _run(parameters, statements, size, arguments):
    """The statements once for each i in a shape of that size."""
    count = math.prod(size)
    source = f'extern "C" __global__ void k(Shape shape, {parameters}) {{ {LOOP} {{ {statements} }} }}'
    launch(source, min((count + THREADS - 1) // THREADS, 4096), [shape_of(list(size)), *arguments])


# `at`: the place in a dense tensor of shape `self` that element i of the index names along one dimension.
AT = '''long long at = 0, rest = i, scale = 1;
for (int d = (int)shape.dimensions - 1; d >= 0; --d) {
  long long x = rest % shape.size[d];
  rest /= shape.size[d];
  if (d == dim) {
    x = index[place(i, shape, tindex)];
    if (x < 0) x += self.size[d];
    if (x < 0 || x >= self.size[d]) asm("trap;");
  }
  at += x * scale;
  scale *= self.size[d];
}
'''


def _along(parameters, statement, index, self, dim, arguments):
    _run(f'Shape self, const {TYPES[index.dtype]}* index, Strides tindex, long long dim, {parameters}',
         AT + statement, index.shape, [shape_of(self.shape), index, strides_of(index.stride()), dim, *arguments])


def _gather(self, dim, index, *, sparse_grad=False):
    if self.dim() == 0:
        return self.expand(index.shape).clone()
    kind = TYPES[self.dtype]
    out = torch.empty(index.shape, dtype=self.dtype, device=self.device)
    _along(f'{kind}* out, const {kind}* in', 'out[i] = in[at];', index, self, dim % self.dim(),
           [out, self.contiguous()])
    return out


def _scatter(statement):
    def function(self, dim, index, source):
        out = self.contiguous().clone()
        if index.numel() == 0:
            return out
        kind = TYPES[self.dtype]
        if not isinstance(source, torch.Tensor):
            source = torch.full((), source, dtype=self.dtype, device=self.device).expand(index.shape)
        source = source[tuple(slice(n) for n in index.shape)]
        _along(f'{kind}* out, const {kind}* in, Strides tin', statement, index, out, dim % self.dim(),
               [out, source, strides_of(source.stride())])
        return out
    return function


_serve(aten.gather.default, _gather)
_serve(aten.scatter.src, _scatter('out[at] = in[place(i, shape, tin)];'))
_serve(aten.scatter.value, _scatter('out[at] = in[place(i, shape, tin)];'))
_serve(aten.scatter_add.default, _scatter('atomicAdd(&out[at], in[place(i, shape, tin)]);'))


def _index_select(self, dim, index):
    source = self if self.dim() else self.unsqueeze(0)
    dim %= source.dim()
    size = list(source.shape)
    size[dim] = index.numel()
    view = index.reshape([-1 if d == dim else 1 for d in range(source.dim())]).expand(size)
    return _gather(source, dim, view).view(size if self.dim() else [])


def _embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    return _index_select(weight, 0, indices.reshape(-1)).view([*indices.shape, *weight.shape[1:]])


def _embedding_backward(grad, indices, num_weights, padding_idx, scale_grad_by_freq):
    if scale_grad_by_freq:
        raise NotImplementedError('embedding: scale_grad_by_freq')
    grad = grad.reshape(-1, grad.shape[-1])
    rows = indices.reshape(-1, 1)
    if padding_idx >= 0:
        grad = torch.where(rows == padding_idx, torch.tensor(0.0, dtype=grad.dtype), grad)
    out = torch.zeros([num_weights, grad.shape[-1]], dtype=grad.dtype, device=grad.device)
    return _scatter('atomicAdd(&out[at], in[place(i, shape, tin)]);')(out, 0, rows.expand(grad.shape), grad)


_serve(aten.index_select.default, _index_select)
_serve(aten.embedding.default, _embedding)
_serve(aten.embedding_dense_backward.default, _embedding_backward)


def _rows(self, indices):
    """For several indices at once: self with the indexed dimensions in front, and as one index into those."""
    if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
        raise NotImplementedError('an index of truth values')
    dims = [d for d, index in enumerate(indices) if index is not None]
    kept = [d for d in range(self.dim()) if d not in dims]
    shape = torch.broadcast_shapes(*[indices[d].shape for d in dims])
    linear = torch.zeros(shape, dtype=torch.int64, device=self.device)
    for d in dims:
        index = indices[d].to(device=self.device, dtype=torch.int64)
        linear = linear * self.shape[d] + torch.where(index < 0, index + self.shape[d], index)
    front = self.permute(dims + kept)
    where = dims[0] if dims == list(range(dims[0], dims[0] + len(dims))) else 0
    return front, linear, len(dims), where


def _index(self, indices):
    front, linear, indexed, where = _rows(self, indices)
    flat = front.reshape([math.prod(front.shape[:indexed]), *front.shape[indexed:]])
    out = _index_select(flat, 0, linear.reshape(-1)).view([*linear.shape, *flat.shape[1:]])
    many = linear.dim()
    order = [*range(many, many + where), *range(many), *range(many + where, out.dim())]
    return out.permute(order)


def _index_put(self, indices, values, accumulate=False, unsafe=False):
    front, linear, indexed, where = _rows(self, indices)
    flat = front.reshape([math.prod(front.shape[:indexed]), *front.shape[indexed:]])
    many = linear.dim()
    size = [*flat.shape[1:1 + where], *linear.shape, *flat.shape[1 + where:]]
    values = values.to(self.device).expand(size)
    values = values.permute([*range(where, where + many), *range(where), *range(where + many, len(size))])
    values = values.reshape([linear.numel(), *flat.shape[1:]])
    places = linear.reshape([-1, *[1] * (flat.dim() - 1)]).expand(values.shape)
    write = 'atomicAdd(&out[at], in[place(i, shape, tin)]);' if accumulate else 'out[at] = in[place(i, shape, tin)];'
    front.copy_(_scatter(write)(flat, 0, places, values).view(front.shape))
    return self


_serve(aten.index.Tensor, _index)
_define('_index_put_impl_', _index_put)


def _cat(tensors, dim=0):
    tensors = [t for t in tensors if t.dim() != 1 or t.numel() != 0] or list(tensors[:1])
    dim %= max(tensors[0].dim(), 1)
    size = list(tensors[0].shape)
    size[dim] = sum(t.shape[dim] for t in tensors)
    kind = tensors[0].dtype
    for t in tensors[1:]:
        kind = torch.promote_types(kind, t.dtype)
    out, at = torch.empty(size, dtype=kind, device=tensors[0].device), 0
    for t in tensors:
        out.narrow(dim, at, t.shape[dim]).copy_(t)
        at += t.shape[dim]
    return out


_serve(aten.cat.default, _cat)


def _sort(self, *, stable=None, dim=-1, descending=False):
    """Each element goes to the place that the number of smaller ones gives: stable, and as many steps as elements."""
    rows = self.unsqueeze(0) if self.dim() == 0 else self.movedim(dim, -1)
    rows = rows.contiguous()
    values, places = torch.empty_like(rows), torch.empty(rows.shape, dtype=torch.int64, device=self.device)
    kind = TYPES[self.dtype]
    before = '>' if descending else '<'
    _run(f'{kind}* values, long long* places, const {kind}* in, long long n', f'''
        const {kind}* row = in + i / n * n;
        const long long me = i % n;
        const {kind} x = row[me];
        long long to = 0;
        for (long long j = 0; j < n; ++j) to += row[j] {before} x || (row[j] == x && j < me);
        values[i - me + to] = x;
        places[i - me + to] = me;''', rows.shape, [values, places, rows, rows.shape[-1]])
    if self.dim() == 0:
        return values.view([]), places.view([])
    return values.movedim(-1, dim), places.movedim(-1, dim)


_serve(aten.sort.stable, _sort)
_serve(aten.sort.default, lambda self, dim=-1, descending=False: _sort(self, dim=dim, descending=descending))
_serve(aten.topk.default, lambda self, k, dim=-1, largest=True, sorted=True: tuple(
    part.narrow(dim, 0, k).contiguous() for part in _sort(self, dim=dim, descending=largest)))


def _cumsum(self, dim, *, dtype=None):
    kind = dtype or (torch.int64 if self.dtype in EXACT else self.dtype)
    rows = self.to(kind).movedim(dim, -1).contiguous()
    out, name = torch.empty_like(rows), TYPES[kind]
    _run(f'{name}* out, const {name}* in, long long n', f'''
        {name} sum = 0;
        for (long long j = 0; j < n; ++j) out[i * n + j] = sum += in[i * n + j];''',
         [rows.numel() // max(rows.shape[-1], 1)], [out, rows, rows.shape[-1]])
    return out.movedim(-1, dim)


_serve(aten.cumsum.default, _cumsum)


# Pooling.

def _pair(value, default=None):
    value = value if value else default
    return [value[0], value[-1]] if isinstance(value, (list, tuple)) else [value, value]


def _max_pool(self, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    (kh, kw), (ph, pw), (dh, dw) = _pair(kernel_size), _pair(padding, [0, 0]), _pair(dilation)
    sh, sw = _pair(stride, [kh, kw])
    if ceil_mode:
        raise NotImplementedError('max_pool2d: ceil_mode')
    height, width = self.shape[-2:]
    oh, ow = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    dense, kind = self.contiguous(), TYPES[self.dtype]
    out = torch.empty([*self.shape[:-2], oh, ow], dtype=self.dtype, device=self.device)
    places = torch.empty(out.shape, dtype=torch.int64, device=self.device)
    _run(f'{kind}* out, long long* places, const {kind}* in', f'''
        const {kind}* plane = in + i / {oh * ow} * {height * width};
        const int top = i / {ow} % {oh} * {sh} - {ph}, left = i % {ow} * {sw} - {pw};
        long long best = -1;
        for (int y = top; y < top + {kh * dh}; y += {dh}) {{
          for (int x = left; x < left + {kw * dw}; x += {dw}) {{
            if (y < 0 || x < 0 || y >= {height} || x >= {width}) continue;
            const long long p = y * {width} + x;
            if (best < 0 || plane[p] > plane[best]) best = p;
          }}
        }}
        out[i] = plane[best];
        places[i] = best;''', out.shape, [out, places, dense])
    return out, places


def _max_pool_backward(grad, self, kernel_size, stride, padding, dilation, ceil_mode, indices):
    planes = self.shape[:-2].numel()
    flat = torch.zeros([planes, self.shape[-2:].numel()], dtype=grad.dtype, device=grad.device)
    add = _scatter('atomicAdd(&out[at], in[place(i, shape, tin)]);')
    return add(flat, 1, indices.reshape(planes, -1), grad.reshape(planes, -1)).view(self.shape)


_serve(aten.max_pool2d_with_indices.default, _max_pool)
_serve(aten.max_pool2d_with_indices_backward.default, _max_pool_backward)


# Random numbers: Philox 4x32-10 over the seed, the generator's offset and the element.

PHILOX = '''unsigned c0 = (unsigned)i, c1 = (unsigned)(i >> 32), c2 = (unsigned)offset, c3 = (unsigned)(offset >> 32);
unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
for (int round = 0; round < 10; ++round) {
  const unsigned long long p = 0xD2511F53ull * c0, q = 0xCD9E8D57ull * c2;
  c0 = (unsigned)(q >> 32) ^ c1 ^ k0; c1 = (unsigned)q;
  c2 = (unsigned)(p >> 32) ^ c3 ^ k1; c3 = (unsigned)p;
  k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
}
const double u = (c0 >> 8) / 16777216.0, v = (c1 >> 8) / 16777216.0;
'''


def _random(self, generator, expression, *numbers):
    generator = generator or torch.cuda.default_generators[self.device.index or 0]
    offset = generator.get_offset()
    generator.set_offset(offset + 4)
    dense = self if self.is_contiguous() else torch.empty(self.shape, dtype=self.dtype, device=self.device)
    kind = TYPES[self.dtype]
    through = '(float)' if kind in ('Half', 'Brain') else ''
    parameters = ''.join(f', {"double" if isinstance(n, float) else "long long"} s{k}' for k, n in enumerate(numbers))
    if self.numel():
        _run(f'{kind}* out, long long seed, long long offset{parameters}',
             f'{PHILOX} out[i] = ({kind}){through}({expression});', self.shape,
             [dense, generator.initial_seed() & (2 ** 63 - 1), offset, *numbers])
    return self if dense is self else self.copy_(dense)


_define('uniform_', lambda self, low=0.0, high=1.0, *, generator=None: _random(
    self, generator, 's0 + (s1 - s0) * u', float(low), float(high)))
_define('normal_', lambda self, mean=0.0, std=1.0, *, generator=None: _random(
    self, generator, 's0 + s1 * sqrt(-2 * log(1 - u)) * cospi(2 * v)', float(mean), float(std)))
_define('bernoulli_.float', lambda self, p=0.5, *, generator=None: _random(self, generator, 'u < s0', float(p)))
_define('random_.from', lambda self, low, high, *, generator=None: _random(
    self, generator, 's0 + (long long)(((unsigned long long)c1 << 32 | c0) % (unsigned long long)(s1 - s0))', low,
    high))
_define('random_.to', lambda self, high, *, generator=None: self.random_(0, high, generator=generator))
