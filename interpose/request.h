#pragma once

// One plain call on its way to the worker: the generated stubs say what its parameters are, this packs, checks and
// sends them (payload: api/payload.h). Lives on the stack of one call.

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "calls.h"
#include "interpose/process.h"
#include "interpose/thread.h"

namespace tide {

class Request {
 public:
  explicit Request(Call call);

  template <class T>
  void value(T v) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    uint64_t word = 0;
    memcpy(&word, &v, sizeof v);
    put(word);
  }
  // The range must lie in one live allocation. Nothing at all is allowed where bytes is 0.
  void device(CUdeviceptr address, size_t bytes);
  void handle(CUstream stream);
  void handle(CUevent event);
  void handle(CUfunction function) { kernel_handle(function); }
  void handle(CUkernel kernel) { kernel_handle(kernel); }
  void handle(CUlibrary library);
  void handle(CUdevice device);
  template <class T>
  void in(const T* data, size_t count) {
    if constexpr (std::is_void_v<T>)
      bytes_in(data, count);
    else
      bytes_in(data, count * sizeof(T));
  }
  void string(const char* text);
  template <class T>
  void out(T* data, size_t count) {
    if constexpr (std::is_void_v<T>)
      bytes_out(data, count);
    else
      bytes_out(data, count * sizeof(T));
  }
  void default_stream();  // of a call that is work and names no stream
  void keeps() { keeps_ = true; }

  CUresult send();         // no answer
  CUresult call();         // waits for the answer
  CUresult call_cached();  // waits once for each distinct question

 private:
  static constexpr int kOutsMax = 8;
  struct Out {
    void* data;
    size_t bytes;
  };
  void put(uint64_t word);
  void refuse(CUresult error) {
    if (error_ == CUDA_SUCCESS) error_ = error;
  }
  void kernel_handle(const void* handle);
  void bytes_in(const void* data, size_t bytes);
  void bytes_out(void* data, size_t bytes);
  CUresult prepare();
  CUresult capture();
  bool aligned() const;
  bool possible() const;
  std::vector<CUstreamBatchMemOpParams> batch() const;
  CUresult resolve_batch();
  CUresult ask(Reply& reply);
  CUresult deliver(const Reply& reply) const;
  bool unchanged_setting();

  const Call call_;
  CUresult error_ = CUDA_SUCCESS;
  Entered entered_;
  Context* context_ = nullptr;  // in which the call runs
  Vgpu* owner_ = nullptr;       // of the device addresses
  Stream* stream_ = nullptr;
  Kernel* kernel_ = nullptr;
  size_t kernel_at_ = 0;  // where its number goes
  bool keeps_ = false;
  bool no_stream_ = false;  // runs on the default stream
  std::string payload_;     // short ones need no allocation of their own
  Out outs_[kOutsMax];
  int out_count_ = 0;
};

}  // namespace tide
