// Copies with arrays. The worker copies between arrays and its GPU's memory; what comes from or goes to anywhere else
// passes through a piece of the vGPU's memory that is taken for the copy, so that every rule about host memory, streams
// and other vGPUs is that of plain copies.

#include <algorithm>

#include "commands.h"
#include "interpose/array.h"
#include "interpose/graphs.h"
#include "interpose/transfer.h"

namespace tide {
namespace {

constexpr uint64_t kBounceBytesMax = 32u << 20;  // of one piece, unless a row is longer

struct Place {
  Array* array = nullptr;  // null: address
  uint64_t address = 0;    // of the box's first byte
  uint64_t pitch = 0, height = 0;
  uint64_t x = 0, y = 0, z = 0;  // in the array
};

struct Extent {
  uint64_t width, height, depth;
};

struct BoxSide {
  CUmemorytype type;
  uint64_t address;
  CUarray array;
  uint64_t x, y, z, lod, pitch, height;
};

CUresult resolve_array(Process& p, const BoxSide& side, const Extent& n, Place* place) {
  Array* array = p.arrays.find(side.array);
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const auto inside = [](uint64_t start, uint64_t count, uint64_t size) {
    return start <= size && count <= size - start;
  };
  if (side.x % array->element_bytes != 0 || n.width % array->element_bytes != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!inside(side.x, n.width, array->row_bytes()) || !inside(side.y, n.height, array->rows()) ||
      !inside(side.z, n.depth, array->slices())) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *place = {array, 0, 0, 0, side.x, side.y, side.z};
  return CUDA_SUCCESS;
}

CUresult resolve(Process& p, const BoxSide& side, const Extent& n, Place* place) {
  if (side.lod != 0) return CUDA_ERROR_INVALID_VALUE;
  if (side.type == CU_MEMORYTYPE_ARRAY) return resolve_array(p, side, n, place);
  if (side.type != CU_MEMORYTYPE_HOST && side.type != CU_MEMORYTYPE_DEVICE && side.type != CU_MEMORYTYPE_UNIFIED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (side.address == 0) return CUDA_ERROR_INVALID_VALUE;
  place->pitch = side.pitch != 0 ? side.pitch : n.width + side.x;
  place->height = side.height != 0 ? side.height : n.height + side.y;
  if (side.x + n.width > place->pitch || (n.depth > 1 && side.y + n.height > place->height)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  place->address = side.address + (side.z * place->height + side.y) * place->pitch + side.x;
  return CUDA_SUCCESS;
}

struct Order : BoxOrder {
  Entered entered;
};

// The stream of the array's vGPU on which the copy runs, as transfer.cc chooses it.
CUresult choose_stream(const Order& o, const Array& array, Stream** stream) {
  if (o.synchronous && array.vgpu != o.entered.vgpu) return legacy_stream(*o.entered.process, *array.context, stream);
  if (CUresult r = find_stream(o.entered, o.synchronous ? nullptr : o.stream, stream); r != CUDA_SUCCESS) return r;
  return (*stream)->vgpu == array.vgpu ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult send_copy(Stream& stream, const Place& to, const Place& from, const Extent& n, uint64_t* sequence) {
  const auto reference = [](const Place& place) { return place.array == nullptr ? 0 : place.array->reference; };
  const command::CopyArray command{
      reference(to),      to.address,          to.pitch,         uint32_t(to.x),        uint32_t(to.y),
      uint32_t(to.z),     uint32_t(to.height), reference(from),  from.address,          from.pitch,
      uint32_t(from.x),   uint32_t(from.y),    uint32_t(from.z), uint32_t(from.height), n.width,
      uint32_t(n.height), uint32_t(n.depth)};
  return send_command(*stream.context, Call::tideCopyArray, command, stream.slot, sequence);
}

// The rows of a box between two places of memory, one slice after the other.
CUresult copy_rows(const Order& o, const Place& to, const Place& from, const Extent& n) {
  for (uint64_t z = 0; z < n.depth; ++z) {
    CopyOrder rows{.to = {to.address + z * to.height * to.pitch, to.pitch},
                   .from = {from.address + z * from.height * from.pitch, from.pitch},
                   .width = n.width,
                   .height = n.height,
                   .synchronous = o.synchronous,
                   .in_graph = o.in_graph,
                   .stream = o.stream};
    if (CUresult r = copy(rows); r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

// One piece through memory of the array's vGPU.
CUresult bounce(const Order& o, const Place& to, const Place& from, const Extent& n) {
  const Array& array = *(to.array != nullptr ? to.array : from.array);
  Stream* stream = nullptr;
  if (CUresult r = choose_stream(o, array, &stream); r != CUDA_SUCCESS) return r;
  Memory& memory = *array.vgpu->memory;
  uint64_t at = 0;
  if (CUresult r = memory.allocate(*stream->context, n.width * n.height * n.depth, &at); r != CUDA_SUCCESS) return r;
  const Place between{nullptr, at, n.width, n.height, 0, 0, 0};
  uint64_t sequence = 0;
  CUresult r = CUDA_SUCCESS;
  if (to.array != nullptr) {
    r = copy_rows(o, between, from, n);
    if (r == CUDA_SUCCESS) r = send_copy(*stream, to, between, n, &sequence);
  } else {
    r = send_copy(*stream, between, from, n, &sequence);
    if (r == CUDA_SUCCESS) r = copy_rows(o, to, between, n);
  }
  // What the stream does with it has been sent by now.
  memory.release_after(at, stream->slot, array.vgpu->channel().last_work(stream->slot));
  return r;
}

Place moved(const Place& place, uint64_t y, uint64_t z) {
  Place out = place;
  if (place.array != nullptr) {
    out.y += y;
    out.z += z;
  } else {
    out.address += (z * place.height + y) * place.pitch;
  }
  return out;
}

// Whole slices while they fit in a piece, else rows of one.
CUresult bounce_all(const Order& o, const Place& to, const Place& from, const Extent& n) {
  const uint64_t slice = n.width * n.height;
  const uint64_t slices = std::max<uint64_t>(kBounceBytesMax / slice, 1);
  const uint64_t rows = slice <= kBounceBytesMax ? n.height : std::max<uint64_t>(kBounceBytesMax / n.width, 1);
  for (uint64_t z = 0; z < n.depth; z += slices) {
    for (uint64_t y = 0; y < n.height; y += rows) {
      const Extent piece{n.width, std::min(rows, n.height - y), std::min(slices, n.depth - z)};
      if (CUresult r = bounce(o, moved(to, y, z), moved(from, y, z), piece); r != CUDA_SUCCESS) return r;
    }
  }
  return CUDA_SUCCESS;
}

bool known_type(CUmemorytype type) { return type >= CU_MEMORYTYPE_HOST && type <= CU_MEMORYTYPE_UNIFIED; }

struct Sides {
  Place to, from;
};

// Nothing is looked up for a box without bytes.
CUresult resolve_sides(Process& p, const CUDA_MEMCPY3D& c, Sides* sides) {
  if (!known_type(c.srcMemoryType) || !known_type(c.dstMemoryType)) return CUDA_ERROR_INVALID_VALUE;
  const Extent n{c.WidthInBytes, c.Height, c.Depth};
  if (n.width == 0 || n.height == 0 || n.depth == 0) return CUDA_SUCCESS;
  const auto word = [](const void* pointer) { return reinterpret_cast<uint64_t>(pointer); };
  const BoxSide from{c.srcMemoryType, c.srcMemoryType == CU_MEMORYTYPE_HOST ? word(c.srcHost) : c.srcDevice,
                     c.srcArray,      c.srcXInBytes,
                     c.srcY,          c.srcZ,
                     c.srcLOD,        c.srcPitch,
                     c.srcHeight};
  const BoxSide to{c.dstMemoryType, c.dstMemoryType == CU_MEMORYTYPE_HOST ? word(c.dstHost) : c.dstDevice,
                   c.dstArray,      c.dstXInBytes,
                   c.dstY,          c.dstZ,
                   c.dstLOD,        c.dstPitch,
                   c.dstHeight};
  const CUresult r = resolve(p, from, n, &sides->from);
  return r != CUDA_SUCCESS ? r : resolve(p, to, n, &sides->to);
}

// A copy on a capturing stream becomes one node; one that would disturb a capture is refused.
CUresult capture_or_check(const Order& o, const CUDA_MEMCPY3D& c, bool* captured) {
  if (!graph::capturing_anywhere() || o.in_graph) return CUDA_SUCCESS;
  Stream* stream = nullptr;
  if (CUresult r = use_stream(o.entered, o.synchronous ? nullptr : o.stream, &stream); r != CUDA_SUCCESS) return r;
  if (o.synchronous) return ask_stream(*stream);
  *captured = capturing(*stream);
  return *captured ? capture_box(*stream, c) : CUDA_SUCCESS;
}

}  // namespace

CUresult check_box(const CUDA_MEMCPY3D& c) {
  Sides sides;
  if (CUresult r = resolve_sides(*process(), c, &sides); r != CUDA_SUCCESS) return r;
  const Array *to = sides.to.array, *from = sides.from.array;
  if (to != nullptr && from != nullptr && to->vgpu != from->vgpu) return CUDA_ERROR_NOT_SUPPORTED;
  for (const Place* side : {&sides.to, &sides.from}) {
    if (side->array != nullptr || side->address == 0) continue;
    const uint64_t span = ((c.Depth - 1) * side->height + c.Height - 1) * side->pitch + c.WidthInBytes;
    const Vgpu* owner = process()->vgpu_of(side->address);
    if (side->address < kLowestAddress) return CUDA_ERROR_INVALID_VALUE;
    if (owner != nullptr && !(owner->is_open() && owner->memory->covers(side->address, span))) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_SUCCESS;
}

CUresult copy_box(const CUDA_MEMCPY3D& c, const BoxOrder& order) {
  Order o{order, {}};
  Sides sides;
  bool captured = false;
  if (CUresult r = enter(&o.entered); r != CUDA_SUCCESS) return r;
  if (CUresult r = resolve_sides(*o.entered.process, c, &sides); r != CUDA_SUCCESS) return r;
  const Extent n{c.WidthInBytes, c.Height, c.Depth};
  if (n.width == 0 || n.height == 0 || n.depth == 0) return CUDA_SUCCESS;
  if (CUresult r = capture_or_check(o, c, &captured); r != CUDA_SUCCESS || captured) return r;
  const Place &to = sides.to, &from = sides.from;
  if (to.array == nullptr && from.array == nullptr) return copy_rows(o, to, from, n);
  if (to.array != nullptr && from.array != nullptr) {
    if (to.array->vgpu != from.array->vgpu) return CUDA_ERROR_NOT_SUPPORTED;
    Stream* on = nullptr;
    if (CUresult r = choose_stream(o, *to.array, &on); r != CUDA_SUCCESS) return r;
    return send_copy(*on, to, from, n, nullptr);
  }
  const Array& array = *(to.array != nullptr ? to.array : from.array);
  const Place& memory = to.array != nullptr ? from : to;
  const uint64_t span = ((n.depth - 1) * memory.height + n.height - 1) * memory.pitch + n.width;
  // What the vGPU reaches at another address goes the way of host memory.
  const bool reached = o.entered.process->host.on_device(*array.vgpu, memory.address, span) == memory.address;
  const bool owned = o.entered.process->vgpu_of(memory.address) == array.vgpu;
  if (!owned && !reached) return bounce_all(o, to, from, n);
  if (owned && !array.vgpu->memory->covers(memory.address, span)) return CUDA_ERROR_INVALID_VALUE;
  Stream* on = nullptr;
  uint64_t sequence = 0;
  if (CUresult r = choose_stream(o, array, &on); r != CUDA_SUCCESS) return r;
  if (CUresult r = o.entered.process->host.before_work(*array.vgpu); r != CUDA_SUCCESS) return r;
  if (CUresult r = send_copy(*on, to, from, n, &sequence); r != CUDA_SUCCESS || owned || !o.synchronous) return r;
  return o.entered.process->host.after_wait(*array.vgpu, array.vgpu->channel().wait_stream(on->slot, sequence));
}

}  // namespace tide
