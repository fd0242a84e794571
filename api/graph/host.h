#pragma once

// What the graphs and captures of api/graph ask of the driver that they are part of.

#include "api/graph/capture.h"

namespace tide::graph {

class Host {
 public:
  virtual ~Host() = default;

  // CUDA_SUCCESS when calls are possible at all.
  virtual CUresult ready() = 0;
  // The calling thread's context, usable.
  virtual CUresult current(CUcontext* context) = 0;

  // What a stream's handle means to the calling thread.
  virtual CUresult find_stream(CUstream handle, StreamId* id) = 0;

  // Each checks the parameters as the corresponding call does and completes `content`: what can be read back, and
  // `prepared` as the host likes. content->context is set, and may be changed.
  virtual CUresult kernel(const CUDA_KERNEL_NODE_PARAMS_v3& params, Content* content) = 0;
  virtual CUresult copy(Content* content) = 0;
  virtual CUresult fill(Content* content) = 0;
  virtual CUresult event(Content* content) = 0;
  virtual CUresult values(unsigned flags, Content* content) = 0;
  virtual CUresult alloc(Content* content) = 0;
  virtual CUresult free(Content* content) = 0;
  virtual CUresult conditional(Content* content) = 0;
  virtual CUresult host_function(Content* content) = 0;
  virtual CUresult make_conditional(CUcontext context, unsigned value, unsigned flags,
                                    CUgraphConditionalHandle* handle) = 0;

  // Puts the whole graph on a stream, behind what is there and behind its own last launch.
  virtual CUresult launch(Exec& exec, CUstream stream) = 0;
  virtual CUresult upload(Exec& exec, CUstream stream) = 0;

  // Runs the end of a user object; it must not call the driver.
  virtual void run_destructor(CUhostFn destroy, void* pointer) = 0;

  // The name of a kernel, for people.
  virtual std::string kernel_name(const Content& content) = 0;

  virtual CUresult memory_attribute(CUdevice device, CUgraphMem_attribute attribute, cuuint64_t* value, bool set) = 0;
  virtual CUresult trim_memory(CUdevice device) = 0;
};

// The process's; set when the driver is initialised.
bool has_host();
Host& host();
void set_host(Host* host);

}  // namespace tide::graph
