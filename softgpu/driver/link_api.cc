// Entry points: cuLink*. The inputs are kept as PTX; joining them is what every load does, so that completing a link
// only finds out whether they fit, and returns them as one image.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "softgpu/driver/driver.h"
#include "softgpu/driver/grid_barrier.h"
#include "softgpu/driver/load_options.h"
#include "softgpu/fatbin/fatbin.h"
#include "softgpu/fatbin/object.h"

namespace softgpu {

// What may still be pulled in: a member of a library counts only when something needs it.
struct LinkState {
  JitLog log;
  std::vector<PtxUnit> units;
  std::vector<PtxUnit> members;
  std::string image;  // of the completed link
};

}  // namespace softgpu

using namespace softgpu;  // an entry point is C; everything it uses is ours

namespace {

unsigned capability() { return driver().devices[0]->profile.capability(); }

CUresult fail(const LinkState& state, CUresult result, const std::string& text) {
  write_jit_log(state.log, "error   : " + text + "\n");
  tide::log(tide::LogLevel::kWarning, "cannot link a GPU program: %s", text.c_str());
  return result;
}

CUresult add_image(LinkState& state, ImageText image, const std::string& name, bool member) {
  if (image.status != ImageStatus::kOk) {
    return fail(state, image.status == ImageStatus::kInvalid ? CUDA_ERROR_INVALID_IMAGE : CUDA_ERROR_NO_BINARY_FOR_GPU,
                (name.empty() ? "" : name + ": ") + image.error);
  }
  for (PtxUnit& unit : units_of(std::move(image))) {
    if (unit.name.empty()) unit.name = name;
    LoadError error;
    if (!Program::check_unit(unit, capability(), &error)) return fail(state, result_of(error.kind), error.text);
    (member ? state.members : state.units).push_back(std::move(unit));
  }
  return CUDA_SUCCESS;
}

CUresult add_input(LinkState& state, CUjitInputType type, std::string_view bytes, const std::string& name) {
  switch (type) {
    case CU_JIT_INPUT_PTX:
    case CU_JIT_INPUT_FATBINARY:
    case CU_JIT_INPUT_CUBIN:
    case CU_JIT_INPUT_OBJECT:
      return add_image(state, read_image(bytes, capability()), name, false);
    case CU_JIT_INPUT_LIBRARY: {
      std::vector<Member> members;
      if (!read_archive(bytes, &members)) return fail(state, CUDA_ERROR_INVALID_IMAGE, name + ": not an archive");
      for (const Member& member : members) {
        ImageText image = read_image(member.bytes, capability());
        if (image.status == ImageStatus::kNoPtx && is_host_object(member.bytes)) continue;  // host code only
        const CUresult result = add_image(state, std::move(image), name + ":" + member.name, true);
        if (result != CUDA_SUCCESS) return result;
      }
      return CUDA_SUCCESS;
    }
    default:
      return type == CU_JIT_INPUT_NVVM ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult complete(LinkState& state, void** cubin, size_t* bytes) {
  LoadError error;
  state.members.push_back(grid_barrier_unit());
  Program::pull_members(&state.units, &state.members);
  if (state.units.empty()) return fail(state, CUDA_ERROR_INVALID_VALUE, "nothing to link");
  if (!Program::check(state.units, capability(), &error)) {
    const bool linking = error.kind == LoadFailure::kLink || error.kind == LoadFailure::kUndefined;
    return fail(state, linking ? CUDA_ERROR_UNKNOWN : result_of(error.kind), error.text);
  }
  std::vector<std::string> names, texts;
  for (const PtxUnit& unit : state.units) {
    names.push_back(unit.name);
    texts.push_back(unit.text);
  }
  state.image = write_linked_image(names, texts, capability());
  *cubin = state.image.data();
  if (bytes != nullptr) *bytes = state.image.size();
  return CUDA_SUCCESS;
}

template <typename Body>
CUresult of_link(CUlinkState handle, Body body) {
  return in_context([&](Context&) -> CUresult {
    const auto state = driver().links.find(handle);
    return state == nullptr ? CUDA_ERROR_INVALID_HANDLE : body(*state);
  });
}

}  // namespace

extern "C" CUresult cuLinkCreate_v2(unsigned int count, CUjit_option* options, void** values, CUlinkState* link) {
  return in_context([&](Context&) -> CUresult {
    if (link == nullptr || (count != 0 && (options == nullptr || values == nullptr))) return CUDA_ERROR_INVALID_VALUE;
    auto state = std::make_shared<LinkState>();
    state->log = read_load_options(options, values, count);
    clear_jit_log(state->log);
    *link = driver().links.next();
    driver().links.add(*link, state);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuLinkAddData_v2(CUlinkState link, CUjitInputType type, void* data, size_t bytes, const char* name,
                                     unsigned int, CUjit_option*, void**) {
  return of_link(link, [&](LinkState& state) -> CUresult {
    if (data == nullptr || bytes == 0 || !state.image.empty()) return CUDA_ERROR_INVALID_VALUE;
    return add_input(state, type, {static_cast<const char*>(data), bytes}, name == nullptr ? "" : name);
  });
}

extern "C" CUresult cuLinkAddFile_v2(CUlinkState link, CUjitInputType type, const char* path, unsigned int,
                                     CUjit_option*, void**) {
  return of_link(link, [&](LinkState& state) -> CUresult {
    if (path == nullptr || !state.image.empty()) return CUDA_ERROR_INVALID_VALUE;
    std::string file;
    if (!read_image_file(path, &file)) return CUDA_ERROR_FILE_NOT_FOUND;
    return add_input(state, type, file, path);
  });
}

extern "C" CUresult cuLinkComplete(CUlinkState link, void** cubin, size_t* bytes) {
  return of_link(link, [&](LinkState& state) -> CUresult {
    return cubin == nullptr || !state.image.empty() ? CUDA_ERROR_INVALID_VALUE : complete(state, cubin, bytes);
  });
}

extern "C" CUresult cuLinkDestroy(CUlinkState link) {
  return guarded(
      [&]() -> CUresult { return driver().links.remove(link) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS; });
}
