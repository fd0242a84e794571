#pragma once

// One driver call on its way through the tracer. The generated wrappers (trace_wrappers.cc) make one, call the function
// of the same name in the library behind (libtidecuda.so, which follows in LD_PRELOAD), and end it.

#include <cuda.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "api/travel.h"

namespace tide::trace {

struct ThreadBuffer;

class Span {
 public:
  explicit Span(uint16_t function);
  // The function behind.
  template <class F>
  F* next() const {
    return reinterpret_cast<F*>(next_);
  }
  // Takes the call down; the answer is `result`. One word for each parameter.
  CUresult end(CUresult result, const uint64_t* words);
  // *pointer is an answer of cuGetProcAddress: the wrapper goes in the function's place.
  void replace(CUresult result, void** pointer) const;

 private:
  const uint16_t function_;
  void* next_;
  ThreadBuffer* buffer_;  // null: nothing is recorded
  uint64_t begin_ = 0;
  TravelCounters before_ = {};
};

// The letters are those of format.h: what does not fit its parameter's type does not compile.
template <char kKind, class T>
uint64_t word([[maybe_unused]] const T& value) {
  constexpr bool kOutput = kKind == 'z' || kKind == 'p' || kKind == 'm' || kKind == 'n' || kKind == 'g';
  if constexpr (kKind == '-') {
    return 0;
  } else if constexpr (kKind == 'f') {
    static_assert(std::is_same_v<T, float>);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  } else if constexpr (std::is_pointer_v<T>) {
    static_assert(kKind == 'x' || kKind == 's' || kOutput);
    return reinterpret_cast<uint64_t>(value);
  } else if constexpr (kKind == 'i') {
    static_assert(std::is_enum_v<T> || std::is_integral_v<T>, "api/generate.py knows this type of parameter wrongly");
    return uint64_t(int64_t(value));
  } else {
    static_assert((kKind == 'u' || kKind == 'x') && std::is_unsigned_v<T>);
    return uint64_t(value);
  }
}

}  // namespace tide::trace
