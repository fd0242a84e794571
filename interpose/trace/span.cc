#include "interpose/trace/span.h"

#include "base/clock.h"
#include "interpose/trace/recorder.h"

namespace tide::trace {

Span::Span(uint16_t function) : function_(function), next_(next_function(function)), buffer_(thread_buffer()) {
  if (buffer_ == nullptr) return;
  before_ = *buffer_->travelled;
  begin_ = now_ns();
}

CUresult Span::end(CUresult result, const uint64_t* words) {
  if (buffer_ != nullptr) take_down(*buffer_, {function_, result, begin_, now_ns(), before_, words});
  return result;
}

void Span::replace(CUresult result, void** pointer) const {
  if (result == CUDA_SUCCESS && pointer != nullptr && *pointer != nullptr) *pointer = wrapper_of(*pointer);
}

}  // namespace tide::trace
