#pragma once

// Texture and surface references: variables of a module that the program binds to memory or an array, instead of
// giving kernels an object. A binding holds for launches that come later.

#include <string>

#include "api/composed/composed.h"

namespace tide::composed {

// One variable of a module (null: one that the program made itself, which kernels never see).
struct Reference {
  CUmodule module = nullptr;
  std::string name;
  bool bound = false;
  uint64_t made = 0;  // what the library below made of the binding; its own business
  CUDA_RESOURCE_DESC resource = {};
  CUDA_TEXTURE_DESC texture = {};  // of textures only
};

// Each of the two libraries. SUCCESS, NOT_FOUND, or INVALID_HANDLE when there is no such module.
CUresult find_reference(CUmodule module, const char* name, bool surface);
// Makes the variable what `reference` says. What was launched before still sees the old binding.
CUresult bind_reference(Reference* reference, bool surface);

// Its references are gone. Called by cuModuleUnload.
void forget_references(CUmodule module);

}  // namespace tide::composed
