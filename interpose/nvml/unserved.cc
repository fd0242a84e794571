// Every name that no other file defines: those definitions come before these weak ones.

#include "interpose/nvml/job.h"

#pragma GCC visibility push(default)
extern "C" {

// Whatever the arguments are, the caller clears them away (System V).
#define NAME(function)                                                                                         \
  __attribute__((weak)) tide::nvml::nvmlReturn_t function() {                                                  \
    return tide::nvml::joined() ? tide::nvml::NVML_ERROR_NOT_SUPPORTED : tide::nvml::NVML_ERROR_UNINITIALIZED; \
  }
#include "interpose/nvml/names.inc"
#undef NAME

}  // extern "C"
#pragma GCC visibility pop
