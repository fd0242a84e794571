#pragma once

// Texture and surface objects: what the program described, and the handles by which kernels find them.
//
// Threads: any.

#include <memory>
#include <mutex>
#include <vector>

#include "softgpu/driver/context.h"
#include "softgpu/driver/handle_table.h"
#include "softgpu/exec/texture.h"

namespace softgpu {

struct TextureObject {
  Context* context = nullptr;
  CUDA_RESOURCE_DESC resource{};
  CUDA_TEXTURE_DESC texture{};
  CUDA_RESOURCE_VIEW_DESC view{};
  bool has_view = false;
};

// The objects of one kind, and what of them kernels may still look at.
class TextureObjects {
 public:
  explicit TextureObjects(bool surfaces) : surfaces_(surfaces) {}

  // `wanted` 0: any handle. CUDA_ERROR_INVALID_VALUE when that one is taken.
  CUresult add(TextureObject object, std::unique_ptr<const Texture> texture, uint64_t wanted, uint64_t* handle);
  CUresult remove(uint64_t handle);
  std::shared_ptr<TextureObject> find(uint64_t handle) const { return objects_.find(handle); }
  void forget(Context& context);  // it has been synchronised

 private:
  // Destroyed, but work that was given before may still look for it.
  struct Retired {
    uint64_t handle = 0;
    std::unique_ptr<const Texture> texture;  // null while it is in the table
    std::vector<Ticket> after;               // what ran or waited when it was destroyed
  };
  void reap();                      // requires mu_
  void take_back(uint64_t handle);  // a retired one's handle, for another; requires mu_
  TextureTable& table() const;

  const bool surfaces_;
  HandleTable<uint64_t, TextureObject> objects_{0};
  std::mutex mu_;
  std::vector<Retired> retired_;  // guarded by mu_
};

// What kernels see of a description; refuses what the driver does.
CUresult describe_texture(const TextureObject& object, Texture* texture);
CUresult describe_surface(const CUDA_RESOURCE_DESC& resource, Texture* texture);

}  // namespace softgpu
