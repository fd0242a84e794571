#include "interpose/array.h"

#include <algorithm>
#include <bit>

#include "api/array_shape.h"
#include "api/box.h"
#include "commands.h"
#include "interpose/process.h"

namespace tide {
namespace {

constexpr unsigned kSlices = CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP;

bool solid(const CUDA_ARRAY3D_DESCRIPTOR& what) { return what.Depth != 0 && (what.Flags & kSlices) == 0; }

CUDA_ARRAY3D_DESCRIPTOR level_of(CUDA_ARRAY3D_DESCRIPTOR what, unsigned level) {
  const auto halved = [&](size_t n) { return n == 0 ? n : std::max<size_t>(n >> level, 1); };
  what.Width = halved(what.Width);
  what.Height = halved(what.Height);
  if (solid(what)) what.Depth = halved(what.Depth);
  return what;
}

// 0 where no memory is that large.
uint64_t bytes_of(const CUDA_ARRAY3D_DESCRIPTOR& what, uint64_t element) {
  uint64_t bytes = element;
  for (const uint64_t n : {uint64_t{what.Width}, uint64_t{what.Height}, uint64_t{what.Depth}}) {
    if (__builtin_mul_overflow(bytes, std::max<uint64_t>(n, 1), &bytes)) return 0;
  }
  return bytes;
}

// What the driver refuses whatever memory there is.
CUresult check_shape(const Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, bool mipmap) {
  const auto limit = [&](CUdevice_attribute which) { return context.vgpu->info.attributes[which]; };
  const CUresult r = check_array_shape(what, mipmap, limit);
  if (r != CUDA_SUCCESS || element_bytes(what.Format, what.NumChannels) != 0) return r;
  return array_format_refused(what.Format);
}

// Charges, asks the worker and takes the charge back where it refuses.
CUresult create(Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, uint32_t number, uint32_t levels,
                uint64_t bytes) {
  Memory& memory = *context.vgpu->memory;
  if (CUresult r = memory.charge(context, bytes); r != CUDA_SUCCESS) return r;
  const command::CreateArray command{what.Width,       what.Height, what.Depth, number, levels, uint32_t(what.Format),
                                     what.NumChannels, what.Flags,  0};
  Reply reply;
  const CUresult r = ask_command(context, Call::tideCreateArray, command, &reply);
  if (r != CUDA_SUCCESS) memory.discharge(bytes);
  return r;
}

Array* new_array(Process& p, Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, uint64_t reference) {
  Array* array = p.arrays.create();
  if (array == nullptr) return nullptr;
  array->context = &context;
  array->vgpu = context.vgpu;
  array->reference = reference;
  array->what = what;
  array->element_bytes = element_bytes(what.Format, what.NumChannels);
  array->charged_bytes = 0;
  array->mipmap = nullptr;
  p.arrays.publish(array);
  return array;
}

CUresult send_destroy(const Context& context, uint32_t number, uint64_t charged) {
  const CUresult waited = context.vgpu->sync_all();
  const CUresult sent = send_command(context, Call::tideDestroyArray, command::DestroyArray{number, 0});
  context.vgpu->memory->discharge(charged);
  return waited != CUDA_SUCCESS ? waited : sent;
}

}  // namespace

CUresult make_array(Process& p, Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, Array** out) {
  if (CUresult r = check_shape(context, what, false); r != CUDA_SUCCESS) return r;
  const uint64_t element = element_bytes(what.Format, what.NumChannels);
  const uint64_t bytes = bytes_of(what, element);
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const uint32_t number = p.next_array++;
  if (CUresult r = create(context, what, number, 0, bytes); r != CUDA_SUCCESS) return r;
  Array* array = new_array(p, context, what, number);
  if (array == nullptr) {
    send_destroy(context, number, bytes);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  array->charged_bytes = bytes;
  *out = array;
  return CUDA_SUCCESS;
}

CUresult make_mipmap(Process& p, Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, unsigned levels,
                     MipmappedArray** out) {
  if (CUresult r = check_shape(context, what, true); r != CUDA_SUCCESS) return r;
  const uint64_t element = element_bytes(what.Format, what.NumChannels);
  const size_t longest = std::max({what.Width, what.Height, solid(what) ? what.Depth : size_t{1}});
  levels = std::clamp(levels, 1u, unsigned(std::bit_width(longest)));
  uint64_t bytes = 0;
  for (unsigned i = 0; i < levels; ++i) bytes += bytes_of(level_of(what, i), element);
  if (bytes_of(what, element) == 0) return CUDA_ERROR_INVALID_VALUE;
  const uint32_t number = p.next_array++;
  if (CUresult r = create(context, what, number, levels, bytes); r != CUDA_SUCCESS) return r;
  MipmappedArray* mipmap = p.mipmaps.create();
  if (mipmap == nullptr) {
    send_destroy(context, number, bytes);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  mipmap->context = &context;
  mipmap->vgpu = context.vgpu;
  mipmap->number = number;
  mipmap->what = what;
  mipmap->charged_bytes = bytes;
  mipmap->levels.clear();
  p.mipmaps.publish(mipmap);
  for (unsigned i = 0; i < levels; ++i) {
    Array* level = new_array(p, context, level_of(what, i), number | uint64_t{i} << 32);
    if (level == nullptr) {
      drop_mipmap(p, *mipmap);
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    level->mipmap = mipmap;
    mipmap->levels.push_back(level);
  }
  *out = mipmap;
  return CUDA_SUCCESS;
}

CUresult drop_array(Process& p, Array& array) {
  if (array.mipmap != nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const Context& context = *array.context;
  const auto number = uint32_t(array.reference);
  const uint64_t charged = array.charged_bytes;
  return p.arrays.destroy(&array) ? send_destroy(context, number, charged) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult drop_mipmap(Process& p, MipmappedArray& mipmap) {
  const Context& context = *mipmap.context;
  const uint32_t number = mipmap.number;
  const uint64_t charged = mipmap.charged_bytes;
  const std::vector<Array*> levels = mipmap.levels;
  if (!p.mipmaps.destroy(&mipmap)) return CUDA_ERROR_INVALID_HANDLE;
  for (Array* level : levels) p.arrays.destroy(level);
  return send_destroy(context, number, charged);
}

void forget_arrays(Process& p, Context& context) {
  Memory& memory = *context.vgpu->memory;
  p.mipmaps.each([&](MipmappedArray* m) {
    const uint64_t charged = m->charged_bytes;
    if (m->context == &context && p.mipmaps.destroy(m)) memory.discharge(charged);
  });
  p.arrays.each([&](Array* a) {
    const uint64_t charged = a->charged_bytes;
    if (a->context == &context && p.arrays.destroy(a)) memory.discharge(charged);
  });
  context.vgpu->textures.forget(&context);
  context.vgpu->surfaces.forget(&context);
}

}  // namespace tide
