// Texture and surface objects, and references.

#include <cstring>
#include <string_view>
#include <vector>

#include "api/composed/references.h"
#include "api/payload.h"
#include "commands.h"
#include "interpose/array.h"
#include "interpose/entry/entry.h"

using namespace tide;

namespace {

// The number of the array that a description shows, 0 where it shows memory. Clears the handle: it means nothing there.
CUresult take_array(const Entered& e, CUDA_RESOURCE_DESC* resource, uint64_t* reference) {
  *reference = 0;
  switch (resource->resType) {
    case CU_RESOURCE_TYPE_ARRAY: {
      const Array* array = e.process->arrays.find(resource->res.array.hArray);
      if (array == nullptr || array->vgpu != e.vgpu) return CUDA_ERROR_INVALID_HANDLE;
      *reference = array->reference;
      resource->res.array.hArray = nullptr;
      return CUDA_SUCCESS;
    }
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY: {
      const MipmappedArray* mipmap = e.process->mipmaps.find(resource->res.mipmap.hMipmappedArray);
      if (mipmap == nullptr || mipmap->vgpu != e.vgpu) return CUDA_ERROR_INVALID_HANDLE;
      *reference = mipmap->number;
      resource->res.mipmap.hMipmappedArray = nullptr;
      return CUDA_SUCCESS;
    }
    case CU_RESOURCE_TYPE_LINEAR:
    case CU_RESOURCE_TYPE_PITCH2D: {
      const CUdeviceptr address =
          resource->resType == CU_RESOURCE_TYPE_LINEAR ? resource->res.linear.devPtr : resource->res.pitch2D.devPtr;
      return e.process->vgpu_of(address) == e.vgpu || e.process->host.on_device(*e.vgpu, address, 1) == address
                 ? CUDA_SUCCESS
                 : CUDA_ERROR_INVALID_VALUE;
    }
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

struct Descriptions {
  CUDA_RESOURCE_DESC resource;
  CUDA_TEXTURE_DESC texture;
  CUDA_RESOURCE_VIEW_DESC view;
};

// One round trip: the driver below chooses the handle, and kernels get that number.
CUresult create(const Entered& e, bool surface, const TextureRecord& record, uint64_t* handle) {
  Descriptions what;
  memset(&what, 0, sizeof what);
  what.resource = record.resource;
  what.texture = record.texture;
  what.view = record.view;
  uint64_t reference = 0;
  TIDE_TRY(take_array(e, &what.resource, &reference));
  const command::CreateTexture command{0, reference, uint32_t(surface), uint32_t(record.has_view), sizeof what};
  Reply reply;
  TIDE_TRY(ask_command(*e.context, Call::tideCreateTexture, command, command::kCreateTextureDataOffset,
                       std::as_bytes(std::span(&what, 1)), &reply));
  TextureAnswer answer;
  TIDE_TRY(read_answer(reply, &answer));
  (surface ? e.vgpu->surfaces : e.vgpu->textures).add(answer.handle, record);
  *handle = answer.handle;
  return CUDA_SUCCESS;
}

CUresult destroy(bool surface, uint64_t handle) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (!(surface ? e.vgpu->surfaces : e.vgpu->textures).remove(handle)) return CUDA_ERROR_INVALID_HANDLE;
  return send_command(*e.context, Call::tideDestroyTexture, command::DestroyTexture{handle, uint32_t(surface), 0});
}

CUresult look_up(bool surface, uint64_t handle, TextureRecord* record) {
  Entered e;
  TIDE_TRY(enter_quietly(&e));
  return (surface ? e.vgpu->surfaces : e.vgpu->textures).find(handle, record) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// The library behind a module's handle, loaded in the current context.
CUresult find_module(CUmodule module, Entered* e, Library** library) {
  TIDE_TRY(enter(e));
  *library = find_library(*e->process, module);
  if (*library == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if ((*library)->is_module()) e->context = (*library)->context, e->vgpu = e->context->vgpu;
  return await_load(*e->process, **library, *e->context);
}

}  // namespace

CUresult tide::composed::find_reference(CUmodule module, const char* name, bool surface) {
  Entered e;
  Library* library = nullptr;
  TIDE_TRY(find_module(module, &e, &library));
  const std::string_view text(name);
  if (text.empty() || text.size() > kReferenceNameMax) return CUDA_ERROR_NOT_FOUND;
  const command::FindReference command{library->number, uint32_t(surface), 0, text.size()};
  Reply reply;
  return ask_command(*e.context, Call::tideFindReference, command, command::kFindReferenceDataOffset,
                     std::as_bytes(std::span(text)), &reply);
}

CUresult tide::composed::bind_reference(Reference* reference, bool surface) {
  Entered e;
  Library* library = nullptr;
  TIDE_TRY(find_module(reference->module, &e, &library));
  Descriptions what;
  memset(&what, 0, sizeof what);
  what.resource = reference->resource;
  what.texture = reference->texture;
  uint64_t array = 0;
  TIDE_TRY(take_array(e, &what.resource, &array));
  const std::string& name = reference->name;
  const command::BindReference command{library->number, array, uint32_t(surface), 0, name.size(), sizeof what};
  std::vector<std::byte> data(name.size() + sizeof what);
  memcpy(data.data(), name.data(), name.size());
  memcpy(data.data() + name.size(), &what, sizeof what);
  Reply reply;
  return ask_command(*e.context, Call::tideBindReference, command, command::kBindReferenceDataOffset, data, &reply);
}

#pragma GCC visibility push(default)
extern "C" {

CUresult cuTexObjectCreate(CUtexObject* handle, const CUDA_RESOURCE_DESC* resource, const CUDA_TEXTURE_DESC* what,
                           const CUDA_RESOURCE_VIEW_DESC* view) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (handle == nullptr || resource == nullptr || what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TextureRecord record{e.context, *resource, *what, {}, view != nullptr};
  if (view != nullptr) record.view = *view;
  uint64_t got = 0;
  TIDE_TRY(create(e, false, record, &got));
  *handle = got;
  return CUDA_SUCCESS;
}

CUresult cuTexObjectDestroy(CUtexObject handle) { return destroy(false, handle); }

CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC* what, CUtexObject handle) {
  TextureRecord record;
  TIDE_TRY(look_up(false, handle, &record));
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *what = record.resource;
  return CUDA_SUCCESS;
}

CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC* what, CUtexObject handle) {
  TextureRecord record;
  TIDE_TRY(look_up(false, handle, &record));
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *what = record.texture;
  return CUDA_SUCCESS;
}

CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC* what, CUtexObject handle) {
  TextureRecord record;
  TIDE_TRY(look_up(false, handle, &record));
  if (what == nullptr || !record.has_view) return CUDA_ERROR_INVALID_VALUE;
  *what = record.view;
  return CUDA_SUCCESS;
}

CUresult cuSurfObjectCreate(CUsurfObject* handle, const CUDA_RESOURCE_DESC* resource) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (handle == nullptr || resource == nullptr) return CUDA_ERROR_INVALID_VALUE;
  uint64_t got = 0;
  TIDE_TRY(create(e, true, {e.context, *resource, {}, {}, false}, &got));
  *handle = got;
  return CUDA_SUCCESS;
}

CUresult cuSurfObjectDestroy(CUsurfObject handle) { return destroy(true, handle); }

CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC* what, CUsurfObject handle) {
  TextureRecord record;
  TIDE_TRY(look_up(true, handle, &record));
  if (what == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *what = record.resource;
  return CUDA_SUCCESS;
}

}  // extern "C"
#pragma GCC visibility pop
