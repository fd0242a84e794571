#pragma once

// Arrays, and the texture and surface objects of a vGPU, as the client knows them. Arrays are made and copied by
// commands; what they hold is on the worker's GPU only. A texture object's handle is the one that the worker's driver
// gave, because kernels get it as a plain number.

#include <cuda.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "interpose/handles.h"

namespace tide {

struct Context;
struct Process;
struct Vgpu;

struct MipmappedArray;

struct Array : Handled {
  Context* context = nullptr;
  Vgpu* vgpu = nullptr;
  uint64_t reference = 0;  // on the wire: number | level << 32
  CUDA_ARRAY3D_DESCRIPTOR what = {};
  uint64_t element_bytes = 0;
  uint64_t charged_bytes = 0;
  MipmappedArray* mipmap = nullptr;  // of which it is a level

  // Slices are whatever the third dimension counts.
  uint64_t row_bytes() const { return what.Width * element_bytes; }
  uint64_t rows() const { return what.Height == 0 ? 1 : what.Height; }
  uint64_t slices() const { return what.Depth == 0 ? 1 : what.Depth; }
};

struct MipmappedArray : Handled {
  Context* context = nullptr;
  Vgpu* vgpu = nullptr;
  uint32_t number = 0;
  CUDA_ARRAY3D_DESCRIPTOR what = {};
  uint64_t charged_bytes = 0;
  std::vector<Array*> levels;  // fixed from its creation on
};

struct TextureRecord {
  Context* context = nullptr;
  CUDA_RESOURCE_DESC resource = {};
  CUDA_TEXTURE_DESC texture = {};
  CUDA_RESOURCE_VIEW_DESC view = {};
  bool has_view = false;
};

// By the driver's handle. Any thread.
class TextureRecords {
 public:
  void add(uint64_t handle, const TextureRecord& record) {
    const std::lock_guard lock(mu_);
    records_[handle] = record;
  }
  bool find(uint64_t handle, TextureRecord* record) {
    const std::lock_guard lock(mu_);
    const auto found = records_.find(handle);
    if (found == records_.end()) return false;
    *record = found->second;
    return true;
  }
  bool remove(uint64_t handle) {
    const std::lock_guard lock(mu_);
    return records_.erase(handle) != 0;
  }
  void forget(const Context* context) {
    const std::lock_guard lock(mu_);
    std::erase_if(records_, [&](const auto& item) { return item.second.context == context; });
  }

 private:
  std::mutex mu_;
  std::map<uint64_t, TextureRecord> records_;  // guarded by mu_
};

CUresult make_array(Process& process, Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, Array** array);
CUresult make_mipmap(Process& process, Context& context, const CUDA_ARRAY3D_DESCRIPTOR& what, unsigned levels,
                     MipmappedArray** mipmap);
// Waits for the vGPU's work first, which may use it.
CUresult drop_array(Process& process, Array& array);
CUresult drop_mipmap(Process& process, MipmappedArray& mipmap);
// The worker forgets them with the context.
void forget_arrays(Process& process, Context& context);

struct BoxOrder {
  bool synchronous = false;
  CUstream stream = nullptr;  // of an asynchronous one
  bool in_graph = false;      // of a graph's launch, see CopyOrder
};
// A copy of a box, of which each side may be an array.
CUresult copy_box(const CUDA_MEMCPY3D& what, const BoxOrder& order);
// Only what the call would be refused for.
CUresult check_box(const CUDA_MEMCPY3D& what);

}  // namespace tide
