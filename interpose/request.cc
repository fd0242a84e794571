#include "interpose/request.h"

#include "base/log.h"
#include "interpose/graphs.h"
#include "interpose/values.h"

namespace tide {

Request::Request(Call call) : call_(call) {
  error_ = enter(&entered_);
  context_ = entered_.context;
  payload_.reserve(120);
}

void Request::put(uint64_t word) { payload_.append(reinterpret_cast<const char*>(&word), sizeof word); }

void Request::device(CUdeviceptr address, size_t bytes) {
  uint64_t device = address;
  Vgpu* owner = nullptr;
  if (error_ == CUDA_SUCCESS) {
    HostMemory& host = entered_.process->host;
    refuse(host.before_words(*entered_.context, &address, sizeof address));
    owner = entered_.process->worker_of(address, bytes, entered_.vgpu, &device);
    HostBlock block;
    if (owner == nullptr && host.find(address, &block)) {  // registered memory that no kernel has asked for yet
      refuse(host.attach(*entered_.context, address, &device));
      owner = entered_.process->worker_of(address, bytes, entered_.vgpu, &device);
    }
  }
  put(device);
  put(bytes);
  if (error_ != CUDA_SUCCESS) return;
  const bool in_range = owner != nullptr && entered_.process->vgpu_of(address) == owner;
  if (owner == nullptr || !owner->is_open() || (in_range && !owner->memory->covers(address, bytes))) {
    return refuse(CUDA_ERROR_INVALID_VALUE);
  }
  if (owner_ != nullptr && owner_ != owner) return refuse(CUDA_ERROR_INVALID_VALUE);
  owner_ = owner;
}

void Request::handle(CUstream handle) {
  if (error_ == CUDA_SUCCESS) refuse(use_stream(entered_, handle, &stream_));
  put(stream_ == nullptr ? 0 : stream_->slot);
  if (stream_ != nullptr) context_ = stream_->context;
}

void Request::handle(CUevent handle) {
  Event* event = error_ == CUDA_SUCCESS ? entered_.process->events.find(handle) : nullptr;
  if (event == nullptr)
    refuse(CUDA_ERROR_INVALID_HANDLE);
  else if (event->vgpu != context_->vgpu)
    refuse(CUDA_ERROR_INVALID_HANDLE);
  put(event == nullptr ? 0 : event->slot);
}

void Request::kernel_handle(const void* handle) {
  kernel_ = error_ == CUDA_SUCCESS ? entered_.process->kernels.find(handle) : nullptr;
  if (kernel_ == nullptr) refuse(CUDA_ERROR_INVALID_HANDLE);
  kernel_at_ = payload_.size();
  put(0);  // known when the vGPU is: prepare()
}

void Request::handle(CUlibrary handle) {
  Library* library = error_ == CUDA_SUCCESS ? entered_.process->libraries.find(handle) : nullptr;
  if (library == nullptr)
    refuse(CUDA_ERROR_INVALID_HANDLE);
  else
    refuse(load(*entered_.process, *library, *context_));
  put(library == nullptr ? 0 : library->number);
}

void Request::handle(CUdevice ordinal) {
  put(0);  // a worker has one
  if (error_ != CUDA_SUCCESS) return;
  Vgpu* vgpu = entered_.process->device(ordinal);
  if (vgpu == nullptr) return refuse(CUDA_ERROR_INVALID_DEVICE);
  if (vgpu == context_->vgpu) return;
  context_ = vgpu->primary;
  refuse(activate(*context_));
}

void Request::bytes_in(const void* data, size_t bytes) {
  if (data == nullptr && bytes != 0) return refuse(CUDA_ERROR_INVALID_VALUE);
  put(bytes);
  payload_.append(static_cast<const char*>(data), bytes);
  payload_.append((8 - bytes % 8) % 8, '\0');
}

void Request::string(const char* text) {
  if (text == nullptr) return refuse(CUDA_ERROR_INVALID_VALUE);
  bytes_in(text, strlen(text) + 1);
}

void Request::bytes_out(void* data, size_t bytes) {
  if (data == nullptr || out_count_ == kOutsMax) return refuse(CUDA_ERROR_INVALID_VALUE);
  outs_[out_count_++] = {data, bytes};
}

void Request::default_stream() {
  no_stream_ = true;
  if (error_ != CUDA_SUCCESS) return;
  // Unified addressing: memory of another vGPU is worked on where it is.
  if (owner_ != nullptr && owner_ != entered_.vgpu) {
    context_ = owner_->primary;
    refuse(activate(*context_));
    if (error_ == CUDA_SUCCESS) refuse(legacy_stream(*entered_.process, *context_, &stream_));
    return;
  }
  refuse(use_stream(entered_, nullptr, &stream_));
}

CUresult Request::prepare() {
  if (error_ != CUDA_SUCCESS) return error_;
  if (owner_ != nullptr && owner_ != context_->vgpu) return CUDA_ERROR_INVALID_VALUE;
  if (kernel_ != nullptr) {
    uint64_t number = 0;
    if (CUresult r = wire_kernel(*entered_.process, *kernel_, *context_, &number); r != CUDA_SUCCESS) return r;
    memcpy(payload_.data() + kernel_at_, &number, sizeof number);
  }
  if (payload_.size() > kCommandPayloadMax) return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}

// cuFuncSetAttribute and cuKernelSetAttribute are called before every launch by libraries, nearly always in vain.
bool Request::unchanged_setting() {
  const bool function = call_ == Call::cuFuncSetAttribute;
  if (!function && call_ != Call::cuKernelSetAttribute) return false;
  std::string key = payload_;
  const size_t attribute_at = function ? 8 : 0, value_at = function ? 16 : 8;
  uint64_t attribute = 0, value = 0;
  memcpy(&attribute, key.data() + attribute_at, sizeof attribute);
  memcpy(&value, key.data() + value_at, sizeof value);
  key.erase(value_at, 8);
  key.push_back(function ? 'f' : 'k');
  if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) kernel_->shared_limit.store(int(value));
  return context_->vgpu->cache.same_setting(key, value);
}

// The operations of cuStreamBatchMemOp lie behind stream, count, flags, and their own length.
constexpr size_t kBatchAt = 4 * sizeof(uint64_t);

std::vector<CUstreamBatchMemOpParams> Request::batch() const {
  std::vector<CUstreamBatchMemOpParams> steps((payload_.size() - kBatchAt) / sizeof(CUstreamBatchMemOpParams));
  if (!steps.empty()) memcpy(steps.data(), payload_.data() + kBatchAt, steps.size() * sizeof steps[0]);
  return steps;
}

CUresult Request::resolve_batch() {
  if (call_ != Call::cuStreamBatchMemOp_v2) return CUDA_SUCCESS;
  std::vector<CUstreamBatchMemOpParams> steps = batch();
  if (CUresult r = resolve_values(entered_, *context_, steps.data(), steps.size()); r != CUDA_SUCCESS) return r;
  if (!steps.empty()) memcpy(payload_.data() + kBatchAt, steps.data(), steps.size() * sizeof steps[0]);
  owner_ = context_->vgpu;  // what it touches of host memory is brought there before
  return CUDA_SUCCESS;
}

// Of the calls that only send, these put work on a stream.
CUresult Request::capture() {
  const auto word = [&](size_t i) {
    uint64_t value = 0;
    memcpy(&value, payload_.data() + i * 8, sizeof value);
    return value;
  };
  const auto fill = [&](unsigned element) {  // address, bytes, value, count, stream
    return capture_fill(*stream_, {word(0), 0, unsigned(word(2)), element, word(3), 1, nullptr});
  };
  const auto rectangle = [&](unsigned element) {  // address, bytes, pitch, value, width, height, stream
    return capture_fill(*stream_, {word(0), word(2), unsigned(word(3)), element, word(4), word(5), nullptr});
  };
  const auto value = [&](CUstreamBatchMemOpType type) {  // stream, address, bytes, value, flags
    CUstreamBatchMemOpParams step{};
    step.waitValue.address = word(1);  // both kinds of operations look alike so far
    step.waitValue.value64 = word(3);
    step.waitValue.flags = unsigned(word(4));
    step.operation = type;
    return capture_values(*stream_, {step});
  };
  switch (call_) {
    case Call::cuMemsetD8Async:
      return fill(1);
    case Call::cuMemsetD16Async:
      return fill(2);
    case Call::cuMemsetD32Async:
      return fill(4);
    case Call::cuMemsetD2D8Async:
      return rectangle(1);
    case Call::cuMemsetD2D16Async:
      return rectangle(2);
    case Call::cuMemsetD2D32Async:
      return rectangle(4);
    case Call::cuStreamWaitValue32_v2:
      return value(CU_STREAM_MEM_OP_WAIT_VALUE_32);
    case Call::cuStreamWaitValue64_v2:
      return value(CU_STREAM_MEM_OP_WAIT_VALUE_64);
    case Call::cuStreamWriteValue32_v2:
      return value(CU_STREAM_MEM_OP_WRITE_VALUE_32);
    case Call::cuStreamWriteValue64_v2:
      return value(CU_STREAM_MEM_OP_WRITE_VALUE_64);
    case Call::cuStreamBatchMemOp_v2:
      return capture_values(*stream_, batch());
    default:
      return graph::refuse_in(id_of(*stream_));
  }
}

// Fills of wider elements begin, and their rows begin, at multiples of these.
bool Request::aligned() const {
  uint64_t address = 0, pitch = 0;
  memcpy(&address, payload_.data(), payload_.size() < 8 ? payload_.size() : 8);
  if (payload_.size() >= 24) memcpy(&pitch, payload_.data() + 16, sizeof pitch);
  switch (call_) {
    case Call::cuMemsetD16_v2:
    case Call::cuMemsetD16Async:
      return address % 2 == 0;
    case Call::cuMemsetD32_v2:
    case Call::cuMemsetD32Async:
      return address % 4 == 0;
    case Call::cuMemsetD2D16_v2:
    case Call::cuMemsetD2D16Async:
      return address % 2 == 0 && pitch % 2 == 0;
    case Call::cuMemsetD2D32_v2:
    case Call::cuMemsetD2D32Async:
      return address % 4 == 0 && pitch % 4 == 0;
    default:
      return true;
  }
}

// What the driver would say at once, as far as it is known here.
bool Request::possible() const {
  if (call_ == Call::cuStreamBatchMemOp_v2) {
    uint64_t count = 0, flags = 0;
    memcpy(&count, payload_.data() + 8, sizeof count);
    memcpy(&flags, payload_.data() + 16, sizeof flags);
    return count <= kValueStepsMax && flags == 0;
  }
  if (call_ != Call::cuFuncSetAttribute && call_ != Call::cuKernelSetAttribute) return true;
  uint64_t attribute = 0, value = 0;
  const size_t at = call_ == Call::cuFuncSetAttribute ? 8 : 0;
  memcpy(&attribute, payload_.data() + at, sizeof attribute);
  memcpy(&value, payload_.data() + at + 8, sizeof value);
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return true;
  const int most = context_->vgpu->info.attributes[CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN];
  return int(value) >= 0 && int(value) <= most;
}

CUresult Request::send() {
  if (CUresult r = prepare(); r != CUDA_SUCCESS) return r;
  if (!aligned() || !possible()) return CUDA_ERROR_INVALID_VALUE;
  if (stream_ != nullptr && capturing(*stream_)) return capture();
  if (CUresult r = resolve_batch(); r != CUDA_SUCCESS) return r;
  if (owner_ != nullptr) {
    if (CUresult r = entered_.process->host.before_work(*owner_); r != CUDA_SUCCESS) return r;
  }
  if (keeps_) {
    if (call_ == Call::cuCtxSetCacheConfig) context_->cache_config.store(payload_[0]);
    if (unchanged_setting()) return CUDA_SUCCESS;
    context_->vgpu->cache.clear();
  }
  Channel& channel = context_->vgpu->channel();
  uint64_t sequence = 0;
  const CUresult r = channel.send(
      {.call = call_,
       .context = context_->number.load(),
       .stream = stream_ != nullptr ? stream_->slot : kNoStream,
       .payload_bytes = uint32_t(payload_.size())},
      [&](std::byte* payload) { memcpy(payload, payload_.data(), payload_.size()); }, &sequence);
  const bool awaited = no_stream_ && owner_ != nullptr && owner_->memory->has_synchronous();
  return r != CUDA_SUCCESS || !awaited ? r : channel.wait_stream(stream_->slot, sequence);
}

CUresult Request::ask(Reply& reply) {
  Channel& channel = context_->vgpu->channel();
  uint64_t sequence = 0;
  CUresult r = channel.send(
      {.call = call_,
       .context = context_->number.load(),
       .stream = stream_ != nullptr ? stream_->slot : kNoStream,
       .payload_bytes = uint32_t(payload_.size()),
       .reply = &reply},
      [&](std::byte* payload) { memcpy(payload, payload_.data(), payload_.size()); }, &sequence);
  if (r == CUDA_SUCCESS) r = channel.wait_reply(reply);
  if (r != CUDA_SUCCESS) channel.forget(sequence);
  return r;
}

CUresult Request::deliver(const Reply& reply) const {
  if (reply.result != CUDA_SUCCESS) return reply.result;
  size_t at = 0;
  for (int i = 0; i < out_count_; ++i) {
    if (reply.payload.size() - at < outs_[i].bytes) {
      log(LogLevel::kError, "%s: the worker's answer is too short", call_name(uint16_t(call_)));
      return CUDA_ERROR_UNKNOWN;
    }
    at = std::min(reply.payload.size(), at + (outs_[i].bytes + 7) / 8 * 8);
  }
  at = 0;
  for (int i = 0; i < out_count_; ++i) {
    memcpy(outs_[i].data, reply.payload.data() + at, outs_[i].bytes);
    at += (outs_[i].bytes + 7) / 8 * 8;
  }
  return CUDA_SUCCESS;
}

CUresult Request::call() {
  if (CUresult r = prepare(); r != CUDA_SUCCESS) return r;
  Reply reply;
  if (CUresult r = ask(reply); r != CUDA_SUCCESS) return r;
  if (keeps_ && reply.result == CUDA_SUCCESS) context_->vgpu->cache.clear();
  return deliver(reply);
}

CUresult Request::call_cached() {
  if (CUresult r = prepare(); r != CUDA_SUCCESS) return r;
  const uint32_t question[2] = {uint32_t(call_), context_->number.load()};
  std::string key = payload_;
  key.append(reinterpret_cast<const char*>(question), sizeof question);
  Reply reply;
  AnswerCache& cache = context_->vgpu->cache;
  if (cache.find(key, &reply.result, &reply.payload)) return deliver(reply);
  if (CUresult r = ask(reply); r != CUDA_SUCCESS) return r;
  cache.remember(key, reply.result, reply.payload);
  return deliver(reply);
}

}  // namespace tide
