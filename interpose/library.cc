#include "interpose/library.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "api/payload.h"
#include "base/log.h"
#include "commands.h"
#include "interpose/image_pieces.h"
#include "interpose/library_answer.h"
#include "interpose/process.h"

namespace tide {
namespace {

constexpr uint64_t kStagePieceBytes = 512u << 10;

// Requires: library.mu.
CUresult make_kernels(Process& process, Library& library, const std::vector<FoundKernel>& parsed) {
  for (const FoundKernel& p : parsed) {
    Kernel* kernel = process.kernels.create();
    if (kernel == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    kernel->library = &library;
    kernel->ordinal = uint32_t(library.kernels.size());
    kernel->name = p.name;
    kernel->params = p.params;
    kernel->param_bytes = p.header.param_bytes;
    kernel->max_threads = p.header.max_threads_per_block;
    kernel->shared_limit.store(-1);
    process.kernels.publish(kernel);
    library.kernels.push_back(kernel);
    library.by_name[kernel->name] = kernel;
  }
  library.known.store(true, std::memory_order_release);
  return CUDA_SUCCESS;
}

bool says_not_here(const Reply& reply) {
  LibraryHeader header;
  if (reply.payload.size() < sizeof header) return false;
  memcpy(&header, reply.payload.data(), sizeof header);
  return header.result == kImageNotHere;
}

// Whether the server did not have what was named, and nobody has asked for more since.
bool was_never_here(Vgpu& vgpu, Instance& instance) {
  if (!instance.named || instance.taken.load() || instance.reply.load() != &instance.first) return false;
  return vgpu.channel().wait_reply(instance.first) == CUDA_SUCCESS && says_not_here(instance.first);
}

// Requires: library.mu, and the reply is there.
CUresult take_answer(Process& process, Library& library, Instance& instance) {
  const Reply& reply = *instance.reply.load();
  LibraryHeader header;
  if (reply.payload.size() < sizeof header) {
    return reply.result != CUDA_SUCCESS ? reply.result : CUDA_ERROR_UNKNOWN;
  }
  memcpy(&header, reply.payload.data(), sizeof header);
  if (header.result != CUDA_SUCCESS) {
    const size_t text = std::min<size_t>(header.message_bytes, reply.payload.size() - sizeof header);
    instance.message.assign(reinterpret_cast<const char*>(reply.payload.data()) + sizeof header, text);
    log(LogLevel::kWarning, "an image was refused with error %d: %s", header.result, instance.message.c_str());
    return header.result == kImageNotHere ? CUDA_ERROR_INVALID_IMAGE : CUresult(header.result);
  }
  std::vector<FoundKernel> parsed;
  if (!parse_kernels(reply.payload, header.kernel_count, &parsed)) {
    log(LogLevel::kError, "the worker's description of an image is malformed");
    return CUDA_ERROR_UNKNOWN;
  }
  if (!library.known.load()) {
    if (CUresult r = make_kernels(process, library, parsed); r != CUDA_SUCCESS) return r;
  }
  // Another GPU may have listed another image of the same fat binary, in another order.
  instance.index.assign(library.kernels.size(), kNoKernel);
  for (uint32_t i = 0; i < parsed.size(); ++i) {
    const auto it = library.by_name.find(parsed[i].name);
    if (it != library.by_name.end()) instance.index[it->second->ordinal] = i;
  }
  return CUDA_SUCCESS;
}

// 0: not to be looked at.
unsigned capability_for_images(const Vgpu& vgpu) {
  static const char* const wanted = getenv("TIDE_IMAGES");
  if (wanted != nullptr && strcmp(wanted, "whole") == 0) return 0;
  const auto* attributes = vgpu.info.attributes;
  return unsigned(attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR] * 10 +
                  attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR]);
}

ImagePieces image_for(const Library& library, const Vgpu& vgpu) {
  return pieces_for({library.image, library.image_bytes}, capability_for_images(vgpu));
}

// Requires: library.mu.
void name_image(Library& library, const Vgpu& vgpu) {
  const unsigned capability = capability_for_images(vgpu);
  if (library.has_sum && library.sum_capability == capability) return;
  const ImagePieces image = image_for(library, vgpu);
  Sha256Sum sum;
  for (const ImagePieces::Piece piece : image.pieces()) sum.add(piece);
  library.sum = sum.end();
  library.sum_bytes = image.bytes();
  library.sum_capability = capability;
  library.has_sum = true;
}

// Only the image's name, where a server that is not on this machine may have it. False: it is to be sent.
bool name_stage(Library& library, Context& context, CUresult* result) {
  Channel& channel = context.vgpu->channel();
  // Another worker, perhaps on another server, would not find it.
  if (channel.is_protected()) return false;
  if (library.image_bytes < kNamedImageBytesLeast || channel.shares_host_memory()) return false;
  name_image(library, *context.vgpu);
  if (library.sum_bytes < kNamedImageBytesLeast) return false;
  command::StageKnown known{library.number, library.sum_bytes, 0, 0, 0, 0};
  static_assert(sizeof known == 2 * sizeof(uint64_t) + sizeof library.sum);
  memcpy(&known.sum0, library.sum.data(), sizeof library.sum);
  *result = send_command(context, Call::tideStageKnown, known);
  return true;
}

CUresult send_stage(Library& library, Context& context) {
  Channel& channel = context.vgpu->channel();
  const uint32_t number = context.number.load();
  ImagePieces image = image_for(library, *context.vgpu);
  for (uint64_t offset = 0; offset < image.bytes(); offset += kStagePieceBytes) {
    const uint64_t bytes = std::min(kStagePieceBytes, image.bytes() - offset);
    const command::Stage stage{library.number, image.bytes(), offset, bytes};
    const CUresult r = channel.send(
        {.call = Call::tideStage, .context = number, .payload_bytes = uint32_t(command::kStageDataOffset + bytes)},
        [&](std::byte* payload) {
          memcpy(payload, &stage, sizeof stage);
          image.read(payload + command::kStageDataOffset, bytes);
        });
    if (r != CUDA_SUCCESS) return r;
  }
  return CUDA_SUCCESS;
}

CUresult send_load(Library& library, Context& context, Reply* reply) {
  const command::LoadLibrary command{library.number, library.number};
  return context.vgpu->channel().send({.call = Call::tideLoadLibrary,
                                       .context = context.number.load(),
                                       .payload_bytes = sizeof command,
                                       .reply = reply,
                                       .library = true},
                                      [&](std::byte* payload) { memcpy(payload, &command, sizeof command); });
}

// The server does not have what was named. Requires: library.mu, and the first reply is there.
CUresult send_after_all(Library& library, Context& context, Instance& instance) {
  CUresult r = send_stage(library, context);
  if (r == CUDA_SUCCESS) r = send_load(library, context, &instance.second);
  if (r == CUDA_SUCCESS) instance.reply.store(&instance.second, std::memory_order_release);
  return r;
}

}  // namespace

Library* find_library(Process& process, const void* handle) {
  Library* library = process.libraries.find(handle);
  return library != nullptr ? library : process.modules.find(handle);
}

void begin_library(Process& process, Library& library, const void* image, uint64_t bytes, bool keep, Context* context) {
  library.number = process.next_library++;
  library.context = context;
  library.known.store(false);
  library.kernels.clear();
  library.by_name.clear();
  library.has_sum = false;
  library.copy.clear();
  library.image = static_cast<const std::byte*>(image);
  library.image_bytes = bytes;
  if (!keep) {
    library.copy.assign(library.image, library.image + bytes);
    library.image = library.copy.data();
  }
  for (auto& instance : library.instances) instance.store(nullptr);
}

CUresult load(Process&, Library& library, Context& context) {
  std::atomic<Instance*>& place = library.instances[context.vgpu->number];
  if (place.load(std::memory_order_acquire) != nullptr) return CUDA_SUCCESS;
  const std::lock_guard lock(library.mu);
  if (place.load() != nullptr) return CUDA_SUCCESS;
  auto instance = std::make_unique<Instance>();
  CUresult r = CUDA_SUCCESS;
  instance->named = name_stage(library, context, &r);
  if (!instance->named) r = send_stage(library, context);
  if (r == CUDA_SUCCESS) r = send_load(library, context, &instance->first);
  if (r != CUDA_SUCCESS) return r;
  place.store(instance.release(), std::memory_order_release);
  return CUDA_SUCCESS;
}

CUresult await_load(Process& process, Library& library, Context& context) {
  Instance* instance = library.instances[context.vgpu->number].load(std::memory_order_acquire);
  if (instance == nullptr) {
    if (CUresult r = load(process, library, context); r != CUDA_SUCCESS) return r;
    instance = library.instances[context.vgpu->number].load(std::memory_order_acquire);
  }
  while (!instance->taken.load(std::memory_order_acquire)) {
    Reply& reply = *instance->reply.load(std::memory_order_acquire);
    if (CUresult r = context.vgpu->channel().wait_reply(reply); r != CUDA_SUCCESS) return r;
    const std::lock_guard lock(library.mu);
    if (instance->taken.load() || &reply != instance->reply.load()) continue;
    if (&reply == &instance->first && says_not_here(reply)) {
      if (CUresult r = send_after_all(library, context, *instance); r != CUDA_SUCCESS) return r;
      continue;
    }
    instance->result = take_answer(process, library, *instance);
    reply.payload.clear();
    reply.payload.shrink_to_fit();
    instance->taken.store(true, std::memory_order_release);
  }
  return instance->result;
}

CUresult find_kernel(Process& process, Library& library, Context& context, const char* name, Kernel** kernel) {
  if (!library.known.load(std::memory_order_acquire)) {
    if (CUresult r = await_load(process, library, context); r != CUDA_SUCCESS) return r;
  }
  const auto it = library.by_name.find(std::string_view(name));
  if (it == library.by_name.end()) return CUDA_ERROR_NOT_FOUND;
  *kernel = it->second;
  return CUDA_SUCCESS;
}

CUresult find_global(Process& process, Library& library, Context& context, const char* name, uint64_t* address,
                     uint64_t* bytes, bool* managed) {
  if (CUresult r = await_load(process, library, context); r != CUDA_SUCCESS) return r;
  Instance& instance = *library.instances[context.vgpu->number].load();
  {
    const std::lock_guard lock(library.mu);
    const auto it = instance.globals.find(name);
    if (it != instance.globals.end()) {
      *address = it->second.address;
      *bytes = it->second.bytes;
      if (managed != nullptr) *managed = it->second.managed;
      return it->second.result;
    }
  }
  const uint64_t name_bytes = strlen(name);
  if (name_bytes > 65536) return CUDA_ERROR_INVALID_VALUE;
  const command::Global command{library.number, name_bytes};
  Reply reply;
  uint64_t sequence = 0;
  Channel& channel = context.vgpu->channel();
  CUresult r = channel.send(
      {.call = Call::tideGlobal,
       .context = context.number.load(),
       .payload_bytes = uint32_t(command::kGlobalDataOffset + name_bytes),
       .reply = &reply},
      [&](std::byte* payload) {
        memcpy(payload, &command, sizeof command);
        memcpy(payload + command::kGlobalDataOffset, name, name_bytes);
      },
      &sequence);
  if (r == CUDA_SUCCESS) r = channel.wait_reply(reply);
  if (r != CUDA_SUCCESS) {
    channel.forget(sequence);
    return r;
  }
  GlobalAnswer answer;
  if (reply.result == CUDA_SUCCESS) {
    if (reply.payload.size() < sizeof answer) return CUDA_ERROR_UNKNOWN;
    memcpy(&answer, reply.payload.data(), sizeof answer);
    context.vgpu->memory->add_global(answer.address, answer.bytes, context.number.load());
    if (answer.managed != 0) {
      r = process.host.add_variable(context, library.number, answer.address, answer.bytes);
      if (r != CUDA_SUCCESS) return r;
    }
  }
  const std::lock_guard lock(library.mu);
  instance.globals[name] = {reply.result, answer.address, answer.bytes, answer.managed != 0};
  *address = answer.address;
  *bytes = answer.bytes;
  if (managed != nullptr) *managed = answer.managed != 0;
  return reply.result;
}

CUresult wire_kernel(Process& process, const Kernel& kernel, Context& context, uint64_t* number) {
  Library& library = *kernel.library;
  Instance* instance = library.instances[context.vgpu->number].load(std::memory_order_acquire);
  if (instance == nullptr || !instance->taken.load(std::memory_order_acquire)) {
    if (library.is_module() && library.context->vgpu != context.vgpu) return CUDA_ERROR_INVALID_HANDLE;
    if (CUresult r = await_load(process, library, context); r != CUDA_SUCCESS) return r;
    instance = library.instances[context.vgpu->number].load(std::memory_order_acquire);
  }
  if (instance->result != CUDA_SUCCESS) return instance->result;
  const uint32_t index = instance->index[kernel.ordinal];
  if (index == kNoKernel) return CUDA_ERROR_NOT_FOUND;
  *number = uint64_t(library.number) << 32 | index;
  return CUDA_SUCCESS;
}

void unload(Process& process, Library& library) {
  // The worker unloads when it is idle; what it waits for must not come behind in the ring.
  for (uint32_t i = 0; i < kVgpusMax; ++i) {
    if (library.instances[i].load() != nullptr) process.by_number[i]->sync_all();
  }
  process.host.release_variables(library.number);
  const std::lock_guard lock(library.mu);
  for (uint32_t i = 0; i < kVgpusMax; ++i) {
    Instance* instance = library.instances[i].exchange(nullptr);
    if (instance == nullptr) continue;
    // Its answer may still come: the instance stays until it has.
    Vgpu* vgpu = process.by_number[i];
    const command::UnloadLibrary command{library.number};
    // What could not be loaded is nothing that the worker knows.
    const bool refused = instance->taken.load() && instance->result != CUDA_SUCCESS;
    if (refused || was_never_here(*vgpu, *instance)) {
      delete instance;
      continue;
    }
    const uint32_t context = library.is_module() ? library.context->number.load() : vgpu->primary->number.load();
    vgpu->channel().send({.call = Call::tideUnloadLibrary, .context = context, .payload_bytes = sizeof command},
                         [&](std::byte* payload) { memcpy(payload, &command, sizeof command); });
    if (instance->reply.load()->done.load(std::memory_order_acquire)) delete instance;
  }
  for (Kernel* kernel : library.kernels) process.kernels.destroy(kernel);
  library.kernels.clear();
  library.by_name.clear();
  library.copy.clear();
  library.copy.shrink_to_fit();
  library.known.store(false);
}

}  // namespace tide
